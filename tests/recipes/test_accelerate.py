"""The configs of `accelerate launch` and docs/multi_gpu.md: accelerate's, TRL's and our own parsers take what is said,
and two processes on a CPU meet."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from trl.scripts.vllm_serve import ScriptArguments, build_command

import reasonvec
from reasonvec.cli import main as program

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted((REPOSITORY / "recipes/accelerate").glob("*.yaml"))
DOCUMENT = (REPOSITORY / "docs/multi_gpu.md").read_text()
SHOWN = [line for block in re.findall(r"```\n(.*?)```", DOCUMENT, re.DOTALL)
         for line in block.replace("\\\n", " ").splitlines()]  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_accelerates_own_parser_reads_it(config: Path) -> None:
    found = load_config_from_file(str(config))  # refuses unknown keys
    assert isinstance(found, ClusterConfig)
    expected = {"ddp": "MULTI_GPU", "fsdp2": "FSDP", "zero3": "DEEPSPEED", "cpu": "MULTI_GPU"}[config.stem]
    assert found.distributed_type == expected
    assert found.num_processes == (2 if config.stem == "cpu" else 8)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_launch_takes_every_key(config: Path) -> None:
    parsed = launch_command_parser().parse_args(["--config_file", str(config), "-m", "reasonvec", "train", "sft"])
    options = set(vars(parsed))
    content = yaml.safe_load(config.read_text())
    assert {*content.get("fsdp_config", {}), *content.get("deepspeed_config", {})} <= options
    arguments, defaults, _ = _validate_launch_command(parsed)
    assert defaults is not None and arguments.num_processes == content["num_processes"]
    assert (arguments.use_fsdp, arguments.use_deepspeed) == (config.stem == "fsdp2", config.stem == "zero3")
    if config.stem == "fsdp2":
        assert int(arguments.fsdp_version) == 2 and arguments.fsdp_state_dict_type == "FULL_STATE_DICT"
    if config.stem == "zero3":
        assert int(arguments.zero_stage) == 3 and str(arguments.zero3_save_16bit_model) == "True"
    assert (arguments.training_script, arguments.training_script_args) == ("reasonvec", ["train", "sft"])
    assert arguments.mixed_precision == content["mixed_precision"]


def test_two_processes_on_the_cpu_meet(tmp_path: Path) -> None:
    (tmp_path / "meet.py").write_text(
        "import accelerate, torch, trl\n"
        "config = trl.SFTConfig(output_dir='x', use_cpu=True, bf16=False, activation_checkpointing=False)\n"
        "total = accelerate.utils.reduce(torch.tensor([config.process_index + 1.0]), 'sum')\n"
        "if config.process_index == 0: print(config.world_size, float(total), torch.distributed.get_backend())\n"
        "torch.distributed.destroy_process_group()\n"
    )
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file",
               str(REPOSITORY / "recipes/accelerate/cpu.yaml"), "--main_process_port", "0", "meet.py"]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == "2 3.0 gloo"


@pytest.mark.parametrize("line", [line for line in SHOWN if "accelerate launch" in line])
def test_what_the_document_launches_is_taken(line: str) -> None:
    words = shlex.split(line)
    arguments = launch_command_parser().parse_args(words[words.index("launch") + 1 :])
    assert (REPOSITORY / arguments.config_file).is_file()
    assert arguments.training_script == "reasonvec"
    ours = arguments.training_script_args
    preset = Path(reasonvec.__file__).parent / "training/presets" / f"{ours[ours.index('--config') + 1]}.yaml"
    fields = yaml.safe_load(preset.read_text())
    fields |= dict(word.split("=") for word in ours if "=" in word)
    config = yaml.safe_load((REPOSITORY / arguments.config_file).read_text())
    processes = arguments.num_processes or config["num_processes"]
    step = processes * int(fields["per_device_train_batch_size"]) * int(fields.get("gradient_accumulation_steps", 1))
    assert step % int(fields.get("num_generations", 1)) == 0
    if processes != 7:
        assert step == {"sft-cpu": 64, "sft-7b-8gpu": 128}.get(preset.stem, 1024)
    command: click.Command = program
    while isinstance(command, click.Group):
        command = command.commands[ours.pop(0)]
    command.make_context("reasonvec", ours)


def test_the_server_gets_the_options_that_trl_wants() -> None:
    (line,) = [line for line in SHOWN if "vllm serve" in line]
    words = shlex.split(line)
    wanted = build_command(ScriptArguments(model="runs/sft"))
    for option in ("--weight-transfer-config", "--logprobs-mode", "--max-logprobs"):
        assert words[words.index(option) + 1] == wanted[wanted.index(option) + 1], option
    assert "VLLM_SERVER_DEV_MODE=1" in words and wanted[-6:] == wanted[wanted.index("--weight-transfer-config") :]
