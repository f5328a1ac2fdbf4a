"""The commands as a user meets them: what goes to stdout, exit statuses, no tracebacks, help."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from reasonvec.cli import main
from tests.checkpoints import everything_under, moved, random_tensors, read, write

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def root(tmp_path, monkeypatch):
    base = random_tensors(0)
    for name, tensors in (("base", base), ("tuned", moved(base, 1)), ("target", moved(base, 2))):
        write(tmp_path / name, tensors)
    monkeypatch.chdir(tmp_path)
    assert run("extract", "--tuned", "tuned", "--base", "base", "--out", "vector").exit_code == 0
    return tmp_path


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


JSON_COMMANDS = {
    "extract": ("--tuned", "tuned", "--base", "base", "--out", "out"),
    "inspect": ("vector",),
    "compare": ("vector", "vector"),
    "compress": ("vector", "--density", "0.5", "--out", "out"),
    "check": ("--vector", "vector", "--target", "target"),
    "apply": ("--vector", "vector", "--target", "target", "--out", "out"),
    "transfer": ("--tuned", "tuned", "--base", "base", "--target", "target", "--out", "out"),
    "verify": ("vector",),
}


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_json_is_one_document_on_stdout_and_nothing_else(root, command):
    result = run(command, *JSON_COMMANDS[command], "--json")
    assert result.exit_code == 0, result.output
    assert isinstance(json.loads(result.stdout), dict)


@pytest.mark.parametrize("command", JSON_COMMANDS)
def test_people_get_text_on_stdout_and_the_next_step_on_stderr(root, command):
    result = run(command, *JSON_COMMANDS[command])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip()
    if command in ("extract", "compress", "apply", "transfer"):
        assert "Next: reasonvec" in result.stderr


def test_each_vector_may_have_its_own_alpha(root):
    run("apply", "--vector", "vector@0.25", "--vector", "vector", "--alpha", "0.5", "--target", "target", "--out", "o")
    receipt = json.loads((root / "o/reasonvec.json").read_text())
    assert [vector["alpha"] for vector in receipt["vectors"]] == [0.25, 0.5]


def test_subtracting_is_alpha_minus_one(root):
    for alpha, out in (("-1", "minus"), ("1", "plus")):
        assert run("apply", "--vector", "vector", "--alpha", alpha, "--target", "target", "--out", out).exit_code == 0
    target, minus, plus = (read(root / name)["model.norm.weight"].astype(float) for name in ("target", "minus", "plus"))
    assert ((minus - target) * (plus - target) <= 0).all()
    assert (minus != plus).any()


def test_the_next_command_can_be_pasted(root):
    result = run("extract", "--tuned", "tuned", "--base", "base", "--out", "my vector")
    offered = [line.removeprefix("Next: ").strip() for line in result.stderr.splitlines() if "reasonvec apply" in line]
    words = [word.replace("TARGET", "target").replace("ENHANCED", "my model") for word in shlex.split(offered[0])[1:]]
    assert "Next: reasonvec verify 'my model'\n" in run(*words).stderr


def test_alpha_zero_says_that_nothing_was_requested(root):
    result = run("apply", "--vector", "vector", "--alpha", "0", "--target", "target", "--out", "o")
    assert "realised: no change was requested of any entry\n" in result.stderr


def test_verify_says_what_was_verified_and_how(root):
    told, checksums = (" ".join(run("verify", "vector", *more).stdout.split()) for more in ([], ["--checksums-only"]))
    assert told.endswith("(vector, 8 tensors, computed again from the inputs, bit for bit).")
    assert checksums.endswith("(vector, 8 tensors, by their checksums).")


@pytest.mark.parametrize("seed", ["0", "18446744073709551615"])
def test_every_seed_that_is_taken_makes_what_verifies(root, seed):
    for command, out in (
        (("apply", "--vector", "vector", "--target", "target", "--rounding", "stochastic"), "enhanced"),
        (("compress", "vector", "--density", "0.5", "--select", "random"), "compressed"),
        (("control", "vector", "--kind", "random"), "control"),
    ):
        assert run(*command, "--seed", seed, "--out", out).exit_code == 0
        assert run("verify", out, "--checksums-only").exit_code == 0


@pytest.mark.parametrize(
    ("status", "arguments", "words"),
    [
        (1, ("inspect", "nowhere"), "reasonvec: nowhere does not exist. A vector is a directory"),
        (1, ("inspect", "base"), "is a checkpoint, not a vector"),
        (1, ("apply", "--vector", "vector", "--target", "vector", "--out", "o"), "is a vector, not a checkpoint"),
        (1, ("apply", "--vector", "vector", "--target", "target", "--out", "base"), "exists already"),
        (1, ("verify", "base"), "was not made by reasonvec"),
        (2, ("apply", "--vector", "vector"), "Missing option '--target'"),
        (2, ("apply", "--vector", "vector", "--target", "target", "--out", "o", "--alpha", "x"), "not a valid float"),
        (2, ("apply", "--vector", "vector@nan", "--target", "target", "--out", "o"), "must be a finite number"),
        (2, ("apply", "--vector", "vector", "--target", "target", "--out", "o", "--max-shard-size", "5XB"),
         "is not a size"),
        (2, ("apply", "--vector", "vector", "--target", "target", "--out", "o", "--max-shard-size", "99999999TB"),
         "bytes; it must be from 1 to 2^64 - 1, which is what a receipt can record"),
        (2, ("apply", "--vector", "vector", "--target", "target", "--alpha", "0.1", "--alpha", "0.10000001",
             "--out", "{alpha}"), "two of the alphas are equal to six digits"),
        (2, ("apply", "--vector", "vector", "--target", "target", "--out", "o", "--skip", "lm_*"), "matches none"),
        (2, ("apply", "--vector", "vector@0,5", "--target", "target", "--out", "o"), "'0,5' is not a number"),
        (2, ("apply", "--vector", "vector@0.5", "--alpha", "2", "--target", "target", "--out", "o"),
         "--alpha 2 would do nothing: every vector has an alpha of its own"),
        (1, ("apply", "--vector", "vector", "--target", "target", "--out", "none/o"), "make it first: mkdir -p none"),
        *((2, (*command, "--seed", seed, "--out", "o"), f"seed is {seed}; it must be a whole number from 0 to 2^64 - 1")
          for seed in ("-1", "18446744073709551616")
          for command in (("apply", "--vector", "vector", "--target", "target", "--rounding", "stochastic"),
                          ("compress", "vector", "--density", "0.5", "--select", "random"),
                          ("control", "vector", "--kind", "random"), ("control", "vector", "--kind", "permuted"),
                          ("export", "lora", "vector", "--rank", "2"))),
        (2, ("compare", "vector"), "at least two vectors"),
        (2, ("frobnicate",), "No such command"),
    ],
)  # fmt: skip
def test_mistakes_are_one_message_with_their_status(root, status, arguments, words):
    before = everything_under(root)
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert everything_under(root) == before


def test_what_does_not_fit_is_status_3(root):
    tensors = read(root / "target")
    del tensors["model.norm.weight"]
    write(root / "other", tensors)
    assert run("extract", "--tuned", "tuned", "--base", "other", "--out", "o").exit_code == 3
    assert run("apply", "--vector", "vector", "--target", "other", "--out", "o").exit_code == 3
    assert run("transfer", "--tuned", "tuned", "--base", "base", "--target", "other", "--out", "o").exit_code == 3
    checked = run("check", "--vector", "vector", "--target", "other", "--json")
    assert checked.exit_code == 3
    assert any(finding["level"] == "blocking" for finding in json.loads(checked.stdout)["findings"])


def test_debug_shows_the_traceback(root):
    command = [sys.executable, "-m", "reasonvec", "inspect", "nowhere"]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    debug = subprocess.run(command, capture_output=True, text=True, check=False,
                           env={"REASONVEC_DEBUG": "1", "PATH": "/usr/bin"})  # fmt: skip
    assert (plain.returncode, debug.returncode) == (1, 1)
    assert "Traceback" not in plain.stderr
    assert "Traceback" in debug.stderr
    assert plain.stderr.splitlines()[-1] == debug.stderr.splitlines()[-1]


def test_a_pipe_that_closes_early_is_no_traceback(root):
    command = f"{sys.executable} -m reasonvec inspect vector --json | head -c 1"
    result = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, check=False)
    assert result.stdout == "{"
    assert "Traceback" not in result.stderr


def commands(group):
    for command in group.commands.values():
        yield command
        if isinstance(command, click.Group):
            yield from commands(command)


@pytest.mark.parametrize("command", list(commands(main)), ids=lambda command: command.name)
def test_every_option_is_explained(command):
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{command.name} {parameter.name}"
    assert command.help


def test_sizes_are_read_as_people_write_them():
    option = next(p for p in main.commands["apply"].params if p.name == "max_shard_size")
    sizes = {"5GB": 5 * 10**9, "500 mb": 5 * 10**8, "2GiB": 2 << 30, "1000": 1000, "1.5k": 1500}
    assert {text: option.type.convert(text, option, None) for text in sizes} == sizes


def test_inspect_shows_every_tensor_when_asked(root):
    assert "input_layernorm" not in run("inspect", "vector").stdout
    rows = "".join(line.split(" ")[1] for line in run("inspect", "vector", "--tensors").stdout.splitlines() if line[1:])
    assert "model.layers.0.input_layernorm.weight" in rows


def test_a_missing_extra_names_the_pip_line(root, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("reasonvec.lab")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torch", None)
    result = run("demo")
    assert result.exit_code == 1
    assert 'pip install "reasonvec[demo]"' in result.stderr


def test_a_figure_is_drawn_and_never_over_another(root):
    assert run("inspect", "vector", "--plot", "figure.svg").exit_code == 0
    assert (root / "figure.svg").read_text().startswith("<?xml")
    assert run("inspect", "vector", "--plot", "figure.svg").exit_code == 1
    assert "a figure is .png, .svg, .pdf" in run("inspect", "vector", "--plot", "figure.jpeg").stderr


def test_the_reference_is_what_the_commands_say():
    checked = subprocess.run(
        [sys.executable, "scripts/cli_reference.py", "--check", "docs/cli.md"], capture_output=True, text=True,
        check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stderr
