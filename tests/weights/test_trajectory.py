"""`trajectory` against NumPy in float64 over whole checkpoints at once; what it refuses; its table and its figure."""

import io
import itertools
import json
import re
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from reasonvec.cli import main
from reasonvec.errors import CheckpointError, IncompatibleError, OutputError, RunError, UsageError
from reasonvec.evaluation.runs import Outcome, open_run
from reasonvec.terminal.trajectory import trajectory as table
from reasonvec.weights import extract, inspect
from reasonvec.weights import follow_trajectory as trajectory
from reasonvec.weights.arithmetic import TILE
from reasonvec.weights.trajectory_figure import plot_trajectory
from tests.checkpoints import BF16, moved, random_tensors, write

Arrays = dict[str, np.ndarray[Any, Any]]
LAYERS = {"0": ".layers.0.", "1": ".layers.1."}


def train(root: Path, kept: tuple[int, ...], dtype: Any = np.float32, **document: Any) -> list[Arrays]:
    """What a training leaves behind: base, checkpoints, finished donor. Returns the tensors of all, the base first."""
    tensors = [random_tensors(0, dtype)]
    tensors[0]["model.layers.1.mlp.up_proj.weight"] = np.zeros((TILE // 100, 250), dtype)  # more tiles than one
    write(root / "base", tensors[0])
    for step in kept:
        tensors.append(moved(tensors[-1], seed=step))
        write(root / f"out/trajectory/step-{step}", tensors[-1], shards=1 + step % 2)
    tensors.append(moved(tensors[-1], seed=99))
    write_into(root / "out", tensors[-1])
    (root / "out/training.json").write_text(json.dumps({"model": model(root), **document}))
    return tensors


def model(root: Path) -> dict[str, Any]:
    return {"location": str(root / "base"), "revision": None, "files": {}}


def write_into(path: Path, tensors: Arrays) -> None:
    shutil.copytree(write(path.parent / "made", tensors), path, dirs_exist_ok=True)
    shutil.rmtree(path.parent / "made")


def flat(tensors: Arrays, part: str = "") -> Any:
    return np.concatenate([tensors[name].astype(np.float64).ravel() for name in sorted(tensors) if part in name])


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def expected(tensors: list[Arrays], part: str = "") -> dict[str, list[Any]]:
    weights = [flat(each, part) for each in tensors]
    vectors = [each - weights[0] for each in weights[1:]]
    moves = [after - before for before, after in itertools.pairwise(weights)]
    lengths = np.array([np.linalg.norm(move) for move in moves])
    return {
        "norm": [np.linalg.norm(vector) for vector in vectors],
        "moved": list(lengths),
        "cosine_to_final": [cosine(vector, vectors[-1]) for vector in vectors],
        "cosine_if_unrelated": [np.linalg.norm(lengths[: i + 1]) / np.linalg.norm(lengths) for i in range(len(moves))],
        "cosine_to_next_move": [cosine(a, b) for a, b in itertools.pairwise(moves)],
    }


@pytest.mark.parametrize("dtype", [BF16, np.dtype(np.float16), np.dtype(np.float32)], ids=str)
def test_every_number_agrees_with_numpy_overall_and_by_layer(tmp_path: Path, dtype: Any) -> None:
    tensors = train(tmp_path, (1, 2, 4, 16), dtype, steps=20)
    found = trajectory(tmp_path / "out").to_json()
    assert [point["step"] for point in found["points"]] == [1, 2, 4, 16, 20]
    assert found["base"] == str(tmp_path / "base") and found["left_out"] == []
    for name, values in expected(tensors).items():
        assert [p[name] for p in found["points"] if p[name] is not None] == pytest.approx(values, rel=1e-10), name
    for layer, part in LAYERS.items():
        for name, values in expected(tensors, part).items():
            rows = [next(row for row in point["layers"] if row["layer"] == layer) for point in found["points"]]
            mine = [row[name] for row in rows if row[name] is not None]
            assert mine == pytest.approx(values, rel=1e-10), (layer, name)
    assert [row["layer"] for row in found["points"][0]["layers"]] == ["0", "1", "other"]
    json.dumps(found, allow_nan=False)


def test_the_last_norm_is_that_of_the_vector_that_extract_makes(tmp_path: Path) -> None:
    train(tmp_path, (1, 2), BF16)
    extract(tuned=tmp_path / "out", base=tmp_path / "base", out=tmp_path / "vector")
    total = inspect(tmp_path / "vector", spectrum=False).total
    assert trajectory(tmp_path / "out").overall.norms[-1] == pytest.approx(total.norm, rel=1e-12)


def test_a_straight_way_and_a_way_back_are_told_apart(tmp_path: Path) -> None:
    base = {"w": np.zeros((3, 4), np.float32)}
    write(tmp_path / "base", base)
    for step, place in ((1, 1.0), (2, 2.0), (3, 1.0)):
        write(tmp_path / f"out/trajectory/step-{step}", {"w": np.full((3, 4), place, np.float32)})
    course = trajectory(tmp_path / "out", base=tmp_path / "base").overall
    assert course.turns == (pytest.approx(1), pytest.approx(-1), None)
    assert course.cosines == (pytest.approx(1), pytest.approx(1), pytest.approx(1))
    assert course.unrelated == tuple(pytest.approx((i / 3) ** 0.5) for i in (1, 2, 3))


def test_steps_are_in_the_order_of_their_numbers_and_the_last_is_not_counted_twice(tmp_path: Path) -> None:
    train(tmp_path, (2, 10), steps=10)
    assert [point.step for point in trajectory(tmp_path / "out").points] == [2, 10]
    (tmp_path / "out/training.json").write_text(json.dumps({"model": model(tmp_path)}))
    assert [point.name for point in trajectory(tmp_path / "out").points] == ["2", "10", "end"]


def test_a_checkpoint_that_did_not_move_has_no_cosine(tmp_path: Path) -> None:
    train(tmp_path, (1,))
    shutil.copytree(tmp_path / "base", tmp_path / "out/trajectory/step-0")
    course = trajectory(tmp_path / "out").overall
    assert course.norms[0] == 0 and course.cosines[0] is None and course.unrelated[0] is None
    assert course.turns[0] is None and course.cosines[-1] == 1
    json.dumps(trajectory(tmp_path / "out").to_json(), allow_nan=False)


def test_a_training_that_is_not_finished_says_in_its_plan_what_it_began_with(tmp_path: Path) -> None:
    train(tmp_path, (1, 2))
    (tmp_path / "out/training.json").rename(tmp_path / "out/plan.json")
    assert [point.step for point in trajectory(tmp_path / "out").points] == [1, 2]
    (tmp_path / "out/plan.json").unlink()
    with pytest.raises(UsageError, match=r"has neither training.json nor plan.json.*--base"):
        trajectory(tmp_path / "out")
    assert [point.step for point in trajectory(tmp_path / "out", base=tmp_path / "base").points] == [1, 2]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "holds a JSON list"),
        ("{", "is not JSON"),
        ('{"model": "base"}', "does not say which model"),
        ('{"model": {"location": 3}}', "does not say which model"),
        ('{"model": {"location": ""}}', "does not say which model"),
    ],
)
def test_a_damaged_record_of_the_training_is_told(tmp_path: Path, content: str, words: str) -> None:
    train(tmp_path, (1, 2))
    (tmp_path / "out/training.json").write_text(content)
    with pytest.raises((CheckpointError, UsageError), match=words):
        trajectory(tmp_path / "out")


def test_too_few_checkpoints_and_wrong_directories_are_told(tmp_path: Path) -> None:
    train(tmp_path, (4,))
    assert len(trajectory(tmp_path / "out").points) == 2
    with pytest.raises(CheckpointError, match=r"holds the kept checkpoints themselves.*training: .*out$"):
        trajectory(tmp_path / "out/trajectory")
    (tmp_path / "out/training.json").unlink()
    with pytest.raises(CheckpointError, match=r"kept too few .*: only .*step-4\. .*takes two at least"):
        trajectory(tmp_path / "out", base=tmp_path / "base")
    shutil.rmtree(tmp_path / "out/trajectory/step-4")
    with pytest.raises(CheckpointError, match="kept too few .*: none"):
        trajectory(tmp_path / "out", base=tmp_path / "base")
    (tmp_path / "pair").mkdir()
    (tmp_path / "out").rename(tmp_path / "pair/grpo")
    with pytest.raises(CheckpointError, match=r"holds a pair of trainings\..*reasonvec trajectory .*pair/grpo"):
        trajectory(tmp_path / "pair")
    with pytest.raises(CheckpointError, match="has no directory 'trajectory'"):
        trajectory(tmp_path / "base")
    with pytest.raises(CheckpointError, match="does not exist"):
        trajectory(tmp_path / "nowhere")


def test_tensors_that_differ_in_name_shape_or_dtype_are_listed(tmp_path: Path) -> None:
    tensors = train(tmp_path, (1, 2))
    place = tmp_path / "out/trajectory/step-2"
    odd = dict(tensors[2])
    for change, words in (
        (
            {"model.norm.weight": odd["model.norm.weight"].astype(BF16)},
            "model.norm.weight: dtype F32 in .*base, BF16 in .*step-2",
        ),
        (
            {"model.norm.weight": np.zeros(17, np.float32)},
            r"model.norm.weight: shape \(16,\) in .*base, \(17,\) in .*step-2",
        ),
        ({"model.new.weight": np.zeros(17, np.float32)}, "model.new.weight: missing in .*base"),
    ):
        shutil.rmtree(place)
        write(place, odd | change)
        with pytest.raises(IncompatibleError, match=f"(?s){words}"):
            trajectory(tmp_path / "out")


def test_a_base_in_bfloat16_that_was_trained_in_float32_is_followed_and_a_mixture_is_not(tmp_path: Path) -> None:
    tensors = train(tmp_path, (1, 2))
    tensors[0] = {name: values.astype(BF16) for name, values in tensors[0].items()}
    shutil.rmtree(tmp_path / "base")
    write(tmp_path / "base", tensors[0])
    norms = trajectory(tmp_path / "out").overall.norms
    assert norms == pytest.approx(expected(tensors)["norm"], rel=1e-10)
    shutil.rmtree(tmp_path / "out/trajectory/step-2")
    write(tmp_path / "out/trajectory/step-2", {name: values.astype(BF16) for name, values in tensors[2].items()})
    with pytest.raises(IncompatibleError, match="dtype F32 in .*step-1, BF16 in .*step-2"):
        trajectory(tmp_path / "out")


def test_a_tied_tensor_that_only_some_store_is_no_misfit(tmp_path: Path) -> None:
    tensors = train(tmp_path, (1, 2))
    before = trajectory(tmp_path / "out").overall
    place = tmp_path / "out/trajectory/step-2"
    shutil.rmtree(place)
    write(place, tensors[2] | {"lm_head.weight": tensors[2]["model.embed_tokens.weight"]})
    assert trajectory(tmp_path / "out").overall == before
    shutil.rmtree(place)
    write(place, tensors[2] | {"lm_head.weight": tensors[1]["model.embed_tokens.weight"]})
    with pytest.raises(IncompatibleError, match="lm_head.weight: missing in .*base"):
        trajectory(tmp_path / "out")


def test_a_checkpoint_that_is_not_finite_or_half_written_is_told_by_name(tmp_path: Path) -> None:
    tensors = train(tmp_path, (1, 2))
    place = tmp_path / "out/trajectory/step-2"
    shutil.rmtree(place)
    write(place, tensors[2] | {"model.norm.weight": np.full(16, np.nan, np.float32)})
    with pytest.raises(CheckpointError, match="step-2.*model.norm.weight' holds NaN or infinity.*diverged"):
        trajectory(tmp_path / "out")
    weights = place / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="step-2"):
        trajectory(tmp_path / "out")
    weights.unlink()
    with pytest.raises(CheckpointError, match="step-2 has neither model.safetensors nor"):
        trajectory(tmp_path / "out")


def test_what_a_kill_left_unfinished_is_not_read_and_told(tmp_path: Path) -> None:
    train(tmp_path, (1, 2))
    (tmp_path / "out/trajectory/.step-4-x1.partial").mkdir()
    (tmp_path / "out/trajectory/.step-4-x1.partial/model.safetensors").write_bytes(b"half")
    found = trajectory(tmp_path / "out")
    assert len(found.points) == 3
    assert found.warnings == (".step-4-x1.partial is no finished checkpoint and was not read.",)
    result = CliRunner().invoke(main, ["trajectory", str(tmp_path / "out")])
    assert result.exit_code == 0 and "warning: .step-4-x1.partial is no finished" in result.stderr


def run_of(path: Path, checkpoint: Path, rights: list[bool], *, vector: Any = None, whole: bool = True) -> Path:
    configuration = {
        "format": "reasonvec run", "format_version": 1, "arm": {"checkpoint": str(checkpoint), "vector": vector},
        "benchmark": {"task": "gsm8k"}, "prompt": {}, "sampling": {}, "engine": {},
    }  # fmt: skip
    with open_run(path, configuration, resume=False) as recorder:
        recorder.append(Outcome(f"gsm8k/{i}", "gsm8k", 0, "0" * 64, right) for i, right in enumerate(rights))
        if whole:
            recorder.finish({})
    return path


def test_accuracy_comes_from_the_log_and_from_runs(tmp_path: Path) -> None:
    found = {"before": {"accuracy": 0.125}, "after": {"accuracy": 0.875}}
    train(tmp_path, (1, 2), steps=3, validation=found)
    rows = [{"step": 1, "rewards/exact/mean": 0.25}, {"step": 2, "loss": 2.0}, {"step": 3, "rewards/exact/mean": 0.5}]
    (tmp_path / "out/log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 4, "rew')
    run_of(tmp_path / "runs/a", tmp_path / "out/trajectory/step-2", [True, False, False])
    run_of(tmp_path / "runs/b", tmp_path / "out", [True, True, False, True])
    run_of(tmp_path / "runs/c", tmp_path / "base", [False, True])
    arguments = ["trajectory", str(tmp_path / "out"), "--runs", str(tmp_path / "runs"), "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["base_accuracies"] == {"validation": 0.125, "gsm8k": 0.5}
    assert [point["accuracies"] for point in document["points"]] == [
        {"sampled": 0.25},
        {"gsm8k": pytest.approx(1 / 3)},
        {"sampled": 0.5, "validation": 0.875, "gsm8k": 0.75},
    ]
    other = trajectory(tmp_path / "out", base=tmp_path / "out/trajectory/step-1")
    assert other.base_accuracies == {}  # what the training measured before was of its own base


def test_runs_that_say_nothing_of_a_checkpoint_are_refused(tmp_path: Path) -> None:
    train(tmp_path, (1, 2))
    step = tmp_path / "out/trajectory/step-1"
    for name, arguments, words in (
        ("vector", {"vector": "v"}, "with a vector added"),
        ("half", {"whole": False}, "is not whole"),
        ("empty", {"rights": []}, "is not whole"),
    ):
        run_of(tmp_path / name, step, **{"rights": [True], **arguments})  # type: ignore[arg-type]
        result = CliRunner().invoke(main, ["trajectory", str(tmp_path / "out"), "--runs", str(tmp_path / name)])
        assert result.exit_code == RunError.exit_status and words in result.stderr, result.output
    run_of(tmp_path / "two/a", step, [True])
    run_of(tmp_path / "two/b", step, [True])
    result = CliRunner().invoke(main, ["trajectory", str(tmp_path / "out"), "--runs", str(tmp_path / "two")])
    assert result.exit_code == RunError.exit_status and "a second run of" in result.stderr


def test_a_damaged_log_is_told(tmp_path: Path) -> None:
    train(tmp_path, (1, 2))
    (tmp_path / "out/log.jsonl").write_text('{"step": 1}\nx\n{"step": 2}\n')
    with pytest.raises(CheckpointError, match="log.jsonl, line 2, is not JSON"):
        trajectory(tmp_path / "out")


def test_memory_grows_with_neither_the_model_nor_the_number_of_checkpoints(tmp_path: Path) -> None:
    tensors = {"layers.0.w": np.zeros((1 << 21,), np.float32)}  # 8 MiB each
    write(tmp_path / "base", tensors)
    for step in range(1, 9):
        write(tmp_path / f"out/trajectory/step-{step}", {"layers.0.w": tensors["layers.0.w"] + np.float32(step)})
    tracemalloc.start()
    trajectory(tmp_path / "out", base=tmp_path / "base")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * TILE * 8  # ten tiles in float64; one checkpoint has 32


def test_the_table_is_readable_at_80_columns_with_any_number_of_points(tmp_path: Path) -> None:
    train(tmp_path, tuple(range(1, 13)), steps=13)
    (tmp_path / "out/log.jsonl").write_text('{"step": 1, "rewards/exact/mean": 0.257}\n')
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(trajectory(tmp_path / "out")))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80 and "…" not in text
    assert "25.7%" in text and "sampled" in text
    header = re.search(r"layer +(.*)", text)
    assert header and header[1].split() == ["1", "3", "4", "6", "8", "10", "11", "13"]


def test_the_figure_is_the_same_bytes_every_time_and_never_over_another(tmp_path: Path) -> None:
    train(tmp_path, (1, 2, 4))
    found = trajectory(tmp_path / "out")
    for name in ("a.png", "b.png"):
        plot_trajectory(found, tmp_path / name, title="cost $5")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        plot_trajectory(found, tmp_path / "a.png", title="again")
    result = CliRunner().invoke(main, ["trajectory", str(tmp_path / "out"), "--plot", str(tmp_path / "c.svg")])
    assert result.exit_code == 0 and "Drew" in result.stderr, result.output
    assert "Cosine to the final vector" in result.stdout and (tmp_path / "c.svg").read_text().startswith("<?xml")


def test_two_points_make_a_figure_too(tmp_path: Path) -> None:
    train(tmp_path, (1,))
    (tmp_path / "out/log.jsonl").write_text('{"step": 1, "rewards/exact/mean": 0.257}\n')
    plot_trajectory(trajectory(tmp_path / "out"), tmp_path / "a.png", title="two")
    assert (tmp_path / "a.png").stat().st_size > 10_000
