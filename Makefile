# Everything a newcomer types. `make demo` and `make test` set up what is missing first.
.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types docs torture sanitize gpu fuzz bench lab-seeds train-pair clean

BIN := .venv/bin
DEMO ?= demo
export PYTHON

help: ## say what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

setup: ## make .venv with all that tests and demo need
	@scripts/setup

demo: setup ## the whole method from nothing, some minutes; writes demo/report.html
	@echo "demo: training donors and target, moving the vector, measuring; results go to $(DEMO)/"
	@$(BIN)/reasonvec demo --out $(DEMO) $(if $(SEED),--seed $(SEED))

test: setup ## the tests
	@echo "test: running the tests (make torture runs the long ones too)"
	@$(BIN)/python -m pytest -q $(ARGS)

check: setup lint types docs-check test ## lint, types, documents, tests

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: setup
	@$(BIN)/mypy

docs: setup ## write docs/cli.md from the commands' help and draw docs/rounding.png
	@$(BIN)/python scripts/cli_reference.py docs/cli.md && $(BIN)/python scripts/figures.py

.PHONY: docs-check
docs-check: setup
	@$(BIN)/python scripts/cli_reference.py --check docs/cli.md

torture: setup ## kill extract, apply and transfer at 200 seeded instants; run on a Ray cluster of two nodes
	@REASONVEC_TORTURE=1 $(BIN)/python -m pytest -q tests/weights/test_output.py -k kill
	@$(BIN)/python -m pytest -q -m cluster tests/weights/test_cluster.py

sanitize: setup ## the compiled loops and their tests under AddressSanitizer and UBSan; needs gcc
	@scripts/sanitize

gpu: setup ## the checks that need a GPU, with their figures; says so where none is at hand
	@$(BIN)/python -m pytest -q -s -m gpu tests/gpu

bench: setup ## time and memory against mergekit and others, hours; ARGS="--part startup" for less, --write for docs
	@$(BIN)/python benchmarks/weights.py $(ARGS)

fuzz: ## fuzz everything that reads files of strangers: RUNS=1000000 SECONDS=600, both at least; fuzz/README.md
	@scripts/setup fuzz
	@$(BIN)/python -m fuzz $(if $(RUNS),--runs $(RUNS)) $(if $(SECONDS),--seconds $(SECONDS)) $(ARGS)

lab-seeds: setup ## five fresh seeds of the demo; writes the table in docs/lab.md
	@$(BIN)/python benchmarks/lab_seeds.py

train-pair: setup ## train pair through TRL on the lab's models, some minutes; exit 1 where the target does not gain
	@$(BIN)/python benchmarks/train_pair.py $(ARGS)

clean: ## remove what was made, .venv excepted
	@rm -rf demo bench build dist fuzz/findings .pytest_cache .mypy_cache .ruff_cache .hypothesis
