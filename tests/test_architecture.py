"""The picture in the design, held true: imports point down, and the weight commands need neither torch nor
transformers."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import reasonvec

SOURCE = Path(reasonvec.__file__).parent
# each room with all it may look into
BELOW = {
    "errors": set(),
    "weights": {"errors"},
    "interchange": {"weights", "errors"},
    "terminal": {"evaluation", "interchange", "weights", "errors"},
    "evaluation": {"weights", "errors"},
    "training": {"evaluation", "weights", "errors"},
    "report": {"evaluation", "weights", "errors"},
    "lab": {"report", "training", "evaluation", "weights", "errors"},
    "cli": {"lab", "report", "training", "evaluation", "interchange", "weights", "errors", "terminal"},
    "__init__": {"evaluation", "interchange", "weights", "errors"},
    "__main__": {"cli"},
}
TORCH_FREE = {"errors", "weights", "interchange", "terminal", "cli", "__init__", "report"}
WITH_TORCH = {"weights/live.py", "weights/loaded.py"}  # imported by those only who hold a model
TORCH_FREE_PARTS = {
    "benchmarks",
    "comparison",
    "grading",
    "overlap",
    "perturbations",
    "program_trees",
    "programs",
    "runs",
    "sandbox",
    "selection",
    "statistics",
    "whole_file",
    "__init__",
}
"""Of evaluation."""


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: absolute imports only"
            yield node.module or ""
            if node.module == "reasonvec":
                yield from (f"reasonvec.{alias.name}" for alias in node.names)


def room(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def part(file):
    return file.relative_to(SOURCE).parts[1].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_point_down(file):
    here = room(file)
    free = here in TORCH_FREE and file.relative_to(SOURCE).as_posix() not in WITH_TORCH
    for name in imports(file):
        parts = name.split(".")
        if parts[0] == "reasonvec" and len(parts) > 1 and parts[1] != here:
            assert parts[1] in BELOW[here], f"{file} imports {name}"
        if free or (here == "evaluation" and part(file) in TORCH_FREE_PARTS):
            assert parts[0] not in ("torch", "transformers", "trl"), f"{file} imports {name}"


# reasonvec itself names them for type checkers alone
def test_what_needs_torch_in_weights_is_imported_by_those_who_have_it():
    names = {f"reasonvec.{path.removesuffix('.py').replace('/', '.')}" for path in WITH_TORCH}
    for file in FILES:
        if room(file) in TORCH_FREE - {"__init__"} and file.relative_to(SOURCE).as_posix() not in WITH_TORCH:
            assert not names & set(imports(file)), f"{file} imports a module that needs torch"


def test_no_circle_between_modules():
    modules = {".".join(("reasonvec", *f.relative_to(SOURCE).with_suffix("").parts)): f for f in FILES}
    graph = {name: {i for i in imports(file) if i in modules} for name, file in modules.items()}
    done, path = set(), []

    def visit(name):
        assert name not in path, f"a circle: {' -> '.join([*path[path.index(name) :], name])}"
        if name not in done:
            path.append(name)
            for other in graph[name]:
                visit(other)
            path.pop()
            done.add(name)

    for name in graph:
        visit(name)


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["apply", "--help"],
        ["check", "--vector", "x", "--target", "y"],
        ["perturb", "x.jsonl", "--operator", "typo", "--out", "y"],
        ["evaluate", "--help"],
        ["stats", "--help"],
        ["overlap", "x.jsonl", "--task", "y.jsonl"],
        ["train", "pair", "--help"],
        ["trajectory", "x", "--runs", "y"],
    ],
)
def test_commands_do_not_import_torch(command):
    code = (
        "import sys\nfrom reasonvec.cli import main\n"
        f"try: main({command})\nexcept SystemExit: pass\n"
        "print('IMPORTED', [m for m in ('torch', 'transformers', 'scipy', 'datasets') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.endswith("IMPORTED []\n")


def test_public_names_are_these():
    assert reasonvec.__all__ == sorted(reasonvec.__all__)
    for name in reasonvec.__all__:
        assert getattr(reasonvec, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = reasonvec.nothing
