"""The commands as a user meets them: what goes where, exit statuses, no tracebacks, and no torch behind them."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

import reasonvec
from reasonvec.cli import main
from reasonvec.errors import CheckpointError
from tests.checkpoints import everything_under
from tests.interchange.models import load, quiet, qwen2, torch, write_adapter, write_model, write_moved


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    base = write_model(root / "base", qwen2())
    write_adapter(root / "adapter", base, r=4, target_modules=["q_proj"])
    with quiet():
        torch.distributed.checkpoint.save({"model": load(write_moved(root / "tuned", base)).state_dict(), "step": 3},
                                          checkpoint_id=root / "dcp")  # fmt: skip
    reasonvec.import_lora(root / "adapter", base=base, out=root / "vector")
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    for path in made.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    return result


COMMANDS = {
    "import lora": ("adapter", "--base", "base", "--out", "out"),
    "import dcp": ("dcp", "--like", "base", "--out", "out"),
    "export lora": ("vector", "--rank", "2", "--out", "out"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_document_on_stdout_and_nothing_else(root, command):
    result = run(*command.split(), *COMMANDS[command], "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["path"].endswith("out")


@pytest.mark.parametrize(
    ("command", "shown", "following"),
    [
        ("import lora", "4.*|2 tensors", "Next: reasonvec check --vector out --target TARGET"),
        ("import dcp", "27 of float32", "Next: reasonvec extract --tuned out --base base --out VECTOR"),
        ("export lora", "of the vector's energy", 'Next: peft.PeftModel.from_pretrained(model, "out")'),
    ],
)
def test_people_get_text_on_stdout_and_the_next_step_on_stderr(root, command, shown, following):
    result = run(*command.split(), *COMMANDS[command])
    assert result.exit_code == 0, result.output
    assert any(words in result.stdout for words in shown.split("|"))
    assert following in result.stderr


def test_what_is_left_out_is_on_stderr(root):
    assert (
        "warning: 1 entries that are not the model's were left out"
        in run("import", "dcp", *COMMANDS["import dcp"]).stderr
    )


@pytest.mark.parametrize(
    ("status", "arguments", "words"),
    [
        (1, ("import", "lora", "nowhere", "--base", "base", "--out", "o"), "reasonvec: nowhere does not exist"),
        (
            1,
            ("import", "lora", "base", "--base", "base", "--out", "o"),
            "is a whole checkpoint: use `reasonvec extract`",
        ),
        (1, ("import", "dcp", "base/config.json", "--like", "base", "--out", "o"), "is a file; name the directory"),
        (1, ("export", "lora", "base", "--rank", "2", "--out", "o"), "is a checkpoint, not a vector"),
        (1, ("export", "lora", "vector", "--rank", "2", "--out", "base"), "exists already"),
        (2, ("export", "lora", "vector", "--rank", "0", "--out", "o"), "--rank is 0"),
        (2, ("export", "lora", "vector", "--rank", "2", "--out", "o", "--target-modules", "x"), "matches none"),
        (2, ("export", "lora", "vector", "--out", "o"), "Missing option '--rank'"),
        (2, ("import", "dcp", "dcp", "--like", "base", "--out", "o", "--skip", "x"), "matches none"),
        (
            2,
            ("import", "lora", "s3://b/a", "--base", "base", "--out", "o"),
            "The adapter s3://b/a is an address in a store, and import and export read and write directories of this",
        ),
        (2, ("import", "lora", "adapter", "--base", "base", "--out", "s3://b/o"), "--out s3://b/o is an address in"),
        (2, ("import", "dcp", "s3://b/d", "--like", "base", "--out", "o"), "checkpoint s3://b/d is an address in"),
        (2, ("import", "dcp", "dcp", "--like", "base", "--out", "s3://b/o"), "--out s3://b/o is an address in"),
        (2, ("export", "lora", "vector", "--rank", "2", "--out", "s3://b/o"), "--out s3://b/o is an address in"),
        (2, ("import", "gguf"), "No such command"),
        (3, ("import", "dcp", "dcp", "--like", "base", "--out", "o", "--prefix", "x."), "27 tensors differ"),
    ],
)
def test_mistakes_are_one_message_with_their_status(root, status, arguments, words):
    before = everything_under(root)
    result = run(*arguments)
    assert result.exit_code == status, result.output
    assert words in result.stderr
    assert result.stdout == ""
    assert everything_under(root) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_neither_torch_nor_peft_is_needed(root, command):
    code = (
        "import sys\nfrom reasonvec.cli import main\n"
        f"try: main({[*command.split(), *COMMANDS[command]]})\nexcept SystemExit as end: assert not end.code\n"
        "assert not [m for m in ('torch', 'transformers', 'peft', 'scipy') if m in sys.modules]"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_is_none_names_the_command_that_makes_one(root):
    for name, command in (("adapter", "reasonvec import lora"), ("dcp", "reasonvec import dcp")):
        with pytest.raises(CheckpointError, match=command):
            reasonvec.extract(tuned=root / name, base=root / "base", out=root / "out")
