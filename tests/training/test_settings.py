"""TRL's fields as they are: unknown ones are named with their neighbours, wrong types and reserved ones are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import trl

from reasonvec.errors import UsageError
from reasonvec.training.config import build_config, master_dtype, save_steps
from reasonvec.training.directory import RunDirectory
from reasonvec.training.quiet import quiet
from reasonvec.training.settings import CONFIGS, RESERVED, preset_names, read_settings


def _file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_changes_win_over_the_file_and_numbers_are_numbers(tmp_path: Path) -> None:
    file = _file(tmp_path, "learning_rate: 1e-6\nmax_steps: 10\nlora:\n  r: 8\n  target_modules: [q_proj]\n")
    found = read_settings("grpo", config=file, changes=["max_steps=20", "lora.r=4", "beta=0"])
    assert found.fields == {"learning_rate": 1e-6, "max_steps": 20, "beta": 0}  # YAML itself reads 1e-6 as text
    assert isinstance(found.fields["learning_rate"], float)
    assert found.lora == {"r": 4, "target_modules": ["q_proj"]}


def test_one_file_may_hold_both_trainings(tmp_path: Path) -> None:
    file = _file(tmp_path, "sft:\n  max_steps: 3\ngrpo:\n  num_generations: 4\n")
    assert read_settings("sft", config=file).fields == {"max_steps": 3}
    assert read_settings("grpo", config=file).fields == {"num_generations": 4}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("learning_rat=1", r"GRPOConfig has no field 'learning_rat'; did you mean learning_rate"),
        ("max_steps=1.5", "max_steps is 1.5, a float; it takes a whole number"),
        ("bf16=maybe", "bf16 is 'maybe', a str; it takes true or false or nothing"),
        ("output_dir=x", "output_dir is not yours to set: a run keeps its files where --out says"),
        ("trust_remote_code=true", "no code from a checkpoint is run"),
        ("lora.rank=3", "LoraConfig has no field 'rank'"),
        ("model_init_kwargs.device_map=auto", "model_init_kwargs.device_map is not passed on"),
        ("model_init_kwargs=auto", "model_init_kwargs is 'auto'; it holds dtype and attn_implementation"),
        ("max_steps", "--set takes field=value, not 'max_steps'"),
        ("optim=[", "is no YAML value"),
    ],
)
def test_what_cannot_be_used_is_said(change: str, said: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_settings("grpo", changes=[change])
    assert said in str(refused.value)


def test_all_that_is_wrong_is_listed_at_once() -> None:
    with pytest.raises(UsageError, match="^3 settings cannot be used"):
        read_settings("sft", changes=["a=1", "max_steps=x", "output_dir=y"])


def test_what_is_reserved_are_fields_of_trl() -> None:
    known = {name for config in CONFIGS.values() for name in config.__dataclass_fields__}
    assert RESERVED.keys() <= known


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_of_fields_that_can_be_set(name: str) -> None:
    kind, _, size = name.partition("-")
    assert read_settings(kind, config=size) == replace(read_settings(kind, config=name), source=size)
    with pytest.raises(UsageError, match="is a preset of another training"):
        read_settings("grpo" if kind == "sft" else "sft", config=name)


def test_a_yaml_file_runs_nothing_and_is_a_map(tmp_path: Path) -> None:
    for text in ("!!python/object/apply:os.system ['touch x']", "- 1", "a: [", "1: 2"):
        with pytest.raises(UsageError, match="is no YAML|holds no map"):
            read_settings("sft", config=_file(tmp_path, text))
    with pytest.raises(UsageError, match="cannot be read"):
        read_settings("sft", config=str(tmp_path / "absent.yaml"))
    with pytest.raises(UsageError, match="neither a preset nor a .yaml file"):
        read_settings("sft", config="enormous")


def test_trl_itself_refuses_what_does_not_go_together(tmp_path: Path) -> None:
    settings = read_settings("grpo", changes=["per_device_train_batch_size=6", "num_generations=4"])
    with quiet(), pytest.raises(UsageError, match="GRPOConfig refuses these settings: .*divisible"):
        build_config(settings, RunDirectory(tmp_path))


def test_weights_are_kept_in_float32_unless_asked_otherwise() -> None:
    assert str(master_dtype(read_settings("sft"))) == "torch.float32"
    assert str(master_dtype(read_settings("sft", changes=["model_init_kwargs.dtype=bfloat16"]))) == "torch.bfloat16"
    with pytest.raises(UsageError, match="weights are kept in float32"):
        master_dtype(read_settings("sft", changes=["model_init_kwargs.dtype=float16"]))


def test_sampling_that_would_round_the_weights_is_refused(tmp_path: Path) -> None:
    settings = read_settings("grpo", changes=["use_transformers_continuous_batching=true"])
    with pytest.raises(UsageError, match="float32 master weights would be lost"):
        build_config(settings, RunDirectory(tmp_path))


def test_a_config_is_trls_own(tmp_path: Path) -> None:
    settings = read_settings("sft", changes=["learning_rate=3e-4", "save_steps=7"])
    config = build_config(settings, RunDirectory(tmp_path))
    assert type(config) is trl.SFTConfig
    assert config.learning_rate == 3e-4
    assert save_steps(settings) == 7
    with pytest.raises(UsageError, match="1 or more"):
        save_steps(read_settings("sft", changes=["save_steps=0"]))
