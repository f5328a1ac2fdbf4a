"""The presets: every value has its source beside it, sources are those that were read, TRL takes the fields, and
batches divide into groups."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import peft
import pytest
import trl
import yaml

import reasonvec
from reasonvec.lab.recipe import Recipe
from reasonvec.training.settings import read_settings

DIRECTORY = Path(reasonvec.__file__).parent / "training/presets"
PRESETS = sorted(DIRECTORY.glob("*.yaml"))
CONFIGS: dict[str, Any] = {"sft": trl.SFTConfig, "grpo": trl.GRPOConfig}
# what was read for these presets; a number from elsewhere has to be read first
READ = {
    "arXiv:2402.03300", "arXiv:2409.12122", "arXiv:2501.12948", "arXiv:2503.14476", "arXiv:2503.18892",
    "doi:10.64434/tml.20250929",
}  # fmt: skip
EXTRA = {"lora"}
"""Blocks that are not fields of TRL's."""


def load(preset: Path) -> dict[str, Any]:
    content = yaml.safe_load(preset.read_text())
    assert isinstance(content, dict)
    return content


def build(preset: Path, tmp_path: Path, **changes: Any) -> Any:
    """TRL's own config object of a preset, for a machine without a GPU."""
    fields = {name: value for name, value in load(preset).items() if name not in EXTRA}
    config = CONFIGS[preset.name.split("-")[0]]
    return config(**{**fields, "output_dir": str(tmp_path), "use_cpu": True, "bf16": False, **changes})


def test_there_is_one_for_every_size_and_training() -> None:
    sizes = ("cpu", "0.5b-1gpu", "1.5b-1gpu", "7b-1gpu", "7b-8gpu")
    assert [preset.stem for preset in PRESETS] == sorted(f"{kind}-{size}" for kind in CONFIGS for size in sizes)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_every_value_has_its_source_on_its_line(preset: Path) -> None:
    for line in preset.read_text().splitlines():
        value, _, source = line.partition("  # ")
        if line.startswith("#") or value.rstrip().endswith(":"):
            continue
        assert source, line
        cited = set(re.findall(r"arXiv:[\d.]+\d|doi:[\w./]+\w", source))
        assert cited <= READ, line
        if source.startswith("no published source"):
            assert re.match(r"no published source; chosen because \S", source), line
        elif cited and "doi:" not in source:
            assert re.search(r"(section|appendix) [A-Z\d.]+\d", source), line
        elif not cited:
            assert re.match(r"TRL's default|measured here: docs/\S+\.md", source), line


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated")  # TRL's own default is the older name
@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_what_is_called_trls_default_is_it(preset: Path, tmp_path: Path) -> None:
    default = CONFIGS[preset.name.split("-")[0]](output_dir=str(tmp_path), use_cpu=True)
    for line in preset.read_text().splitlines():
        if "  # TRL's default" in line:
            ((name, value),) = yaml.safe_load(line).items()
            assert getattr(default, name) == value, line


@pytest.mark.parametrize("kind", CONFIGS)
def test_what_is_measured_in_the_lab_is_the_labs_recipe(kind: str) -> None:
    lab, mine = Recipe(), load(DIRECTORY / f"{kind}-cpu.yaml")
    if kind == "sft":
        expected = {"max_steps": lab.donor.steps, "per_device_train_batch_size": lab.donor.batch,
                    "learning_rate": lab.donor.learning_rate, "warmup_steps": lab.donor.warmup}  # fmt: skip
    else:
        taught = lab.reinforcement
        expected = {"max_steps": taught.steps, "per_device_train_batch_size": taught.prompts * taught.samples,
                    "num_generations": taught.samples, "learning_rate": taught.learning_rate,
                    "warmup_steps": taught.warmup, "max_completion_length": taught.longest}  # fmt: skip
    assert {name: mine[name] for name in expected} == expected


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_every_key_is_a_field_and_trl_takes_the_values(preset: Path, tmp_path: Path) -> None:
    content = load(preset)
    known = {field.name for field in dataclasses.fields(CONFIGS[preset.name.split("-")[0]])}
    assert set(content) - known <= EXTRA
    assert all(not isinstance(value, str) or not re.fullmatch(r"[\d.]+e-?\d+", value) for value in content.values())
    config = build(preset, tmp_path)
    for name, value in content.items():
        if name not in EXTRA | {"bf16", "use_cpu", "lr_scheduler_type"}:
            assert getattr(config, name) == value, name
    if "lora" in content:
        peft.LoraConfig(**content["lora"], task_type="CAUSAL_LM")


@pytest.mark.parametrize("preset", [p for p in PRESETS if p.name.startswith("grpo")], ids=lambda preset: preset.stem)
def test_batches_of_grpo_are_whole_groups_in_one_process_and_on_all_its_gpus(preset: Path, tmp_path: Path) -> None:
    content = load(preset)
    devices = int(re.search(r"(\d+)gpu", preset.name)[1]) if "gpu" in preset.name else 1  # type: ignore[index]
    per_step = content["per_device_train_batch_size"] * content.get("gradient_accumulation_steps", 1) * devices
    assert per_step % content["num_generations"] == 0
    assert per_step == {"cpu": 192, "7b-1gpu": 256}.get(preset.stem.removeprefix("grpo-"), 1024)
    config = build(preset, tmp_path)  # TRL checks it for one process itself
    assert config.steps_per_generation == content.get("gradient_accumulation_steps", 1)  # one update a rollout


@pytest.mark.parametrize("preset", [p for p in PRESETS if p.name.startswith("sft")], ids=lambda preset: preset.stem)
def test_batches_of_sft_are_what_their_comments_say(preset: Path) -> None:
    content = load(preset)
    devices = int(re.search(r"(\d+)gpu", preset.name)[1]) if "gpu" in preset.name else 1  # type: ignore[index]
    per_step = content["per_device_train_batch_size"] * content.get("gradient_accumulation_steps", 1) * devices
    assert per_step == {"cpu": 64, "7b-1gpu": 16}.get(preset.stem.removeprefix("sft-"), 128)


def test_presets_are_packaged() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert '"training/presets/*.yaml"' in project


@pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.stem)
def test_the_training_takes_every_preset_by_its_name(preset: Path) -> None:
    settings = read_settings(preset.name.split("-")[0], config=preset.stem)
    content = load(preset)
    assert settings.lora == content.pop("lora", None)
    assert settings.fields == content
