"""Recipes: what they print is what the commands take, what they may hold is checked by line, and running one goes on
where it stopped. The programs of the run are a stand-in; the lab's own run is in test_lab_recipe.py."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import reasonvec
from reasonvec.cli import main as program
from reasonvec.evaluation.benchmarks.catalog import GROUPS, TASKS
from reasonvec.evaluation.runs import Outcome, open_run

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "scripts"))
import recipe as script  # noqa: E402
import recipe_file  # noqa: E402

RECIPES = sorted((REPOSITORY / "recipes").glob("*.yaml"))
PRESETS = Path(reasonvec.__file__).parent / "training/presets"
SMALL: dict[str, Any] = {
    "name": "small", "out": "out", "data": "data",
    "donors": {"trained": {"base": "base", "target": "target", "training_data": "train.jsonl", "rewards": ["exact"],
                           "sft_config": "sft-cpu", "grpo_config": "grpo-cpu", "grpo_set": ["max_steps=2"]}},
    "dev": {"task": "asdiv", "alphas": [0.5, 1.0]},
    "benchmarks": [{"tasks": ["gsm8k"]}],
    "controls": {"task": "gsm8k", "random": 2, "permuted": 1},
    "perturbations": [{"task": "gsm8k", "operator": "typo", "severity": 1}],
    "expect": {"machine": "none", "hours": {}, "memory_gb": {}},
}  # fmt: skip


def write(path: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump({**SMALL, **changes}))
    return path


def printed(recipe: Path, *arguments: str) -> str:
    command = [sys.executable, "scripts/recipe.py", str(recipe), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    return result.stdout


def calls(text: str, name: str) -> Iterator[list[str]]:
    """The arguments of every call of a program in a printed recipe, as a shell would hand them over."""
    for line in text.splitlines():
        words = shlex.split(line.partition(" || ")[0], comments=True)
        if name in words:
            yield words[words.index(name) + 1 :]


def donors(recipe: Path) -> list[str]:
    return list(yaml.safe_load(recipe.read_text())["donors"])


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_a_shell_reads_what_is_printed(recipe: Path) -> None:
    for name in donors(recipe):
        text = printed(recipe, "--donors", name)
        checked = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_every_command_takes_its_options(recipe: Path) -> None:
    for name in donors(recipe):
        for words in calls(printed(recipe, "--donors", name), "reasonvec"):
            words = [word.replace("$ALPHA", "1") for word in words]
            command: click.Command = program
            while isinstance(command, click.Group):
                command = command.commands[words.pop(0)]
            command.make_context("reasonvec", words)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_what_a_recipe_names_exists(recipe: Path) -> None:
    found = recipe_file.read_recipe(recipe)
    tasks = [task for group in found.benchmarks for task in group.tasks] + [found.dev.task]
    for task in tasks:
        assert task.endswith(".jsonl") or task.partition(":")[0] in {*TASKS, *GROUPS}, task
    trained = found.donors.trained
    if trained:
        for config in (trained.sft_config, trained.grpo_config):
            assert (PRESETS / f"{config}.yaml").is_file() or (REPOSITORY / config).is_file()
        assert trained.launch is None or (REPOSITORY / trained.launch).is_file()
    assert set(found.expect.hours) | set(found.expect.memory_gb) <= set(script.STEPS)


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r.stem != "lab"], ids=lambda recipe: recipe.stem)
def test_the_papers_rows_and_those_its_reviewers_missed_are_there(recipe: Path) -> None:
    for name in donors(recipe):
        text = printed(recipe, "--donors", name)
        runs = [words for words in calls(text, "reasonvec") if words[0] == "evaluate"]
        arms = {Path(words[words.index("--out") + 1]).name: words for words in runs if "/test/gsm8k/" in words[-1]}
        think = [arm for arm, words in arms.items() if "think" in words]
        assert think == ["target-think", "vector-think", "sft-think", "grpo-think"]
        alphas = {arm: words[words.index("--alpha") + 1] for arm, words in arms.items() if "--alpha" in words}
        assert alphas["vector-1"] == "1" and alphas["vector"] == "$ALPHA" and alphas["minus"] == "-$ALPHA"
        assert arms["target"][1] == arms["target-again"][1] and "--vector" not in arms["target-again"]
        assert arms["sft-think"][1] != arms["grpo-think"][1]
        assert len([arm for arm in arms if arm.startswith("random-")]) >= 19 and "permuted-1" in arms
        assert {"sft-update", "interpolation"} <= set(arms)
        parts = {Path(words[-1]).parts[-3 if "/test/" in words[-1] else -2]: words[words.index("--split") + 1]
                 for words in runs}  # fmt: skip
        assert parts["dev"] == "dev" and parts["test"] == "test"
        assert text.index("--split dev") < text.index("ALPHA=$(") < text.index("--split test")


def test_hours_and_memory_stand_beside_their_step() -> None:
    text = printed(REPOSITORY / "recipes/qwen2.5-1.5b-gsm8k.yaml")
    assert re.search(r"^# donors: some 2\.8 hours, 65 GB of GPU memory$", text, re.MULTILINE)
    assert "are estimates" in text.splitlines()[0]


def test_one_step_can_be_looked_at_alone() -> None:
    recipe = REPOSITORY / "recipes/qwen2.5-1.5b-gsm8k.yaml"
    text = printed(recipe, "--only", "check", "--only", "alpha")
    assert "reasonvec check" in text and "ALPHA=$(python scripts/recipe.py" in text and "evaluate" not in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"donor": {}}, r"line \d+: the recipe has no field 'donor'; did you mean donors\?"),
        ({"controls": {"task": "gsm8k", "randon": 3, "permuted": 1}}, r"controls has no field 'randon'.*random\?"),
        ({"controls": {"task": "gsm8k", "permuted": 1}}, "controls lacks random"),
        ({"controls": {"task": "svamp", "random": 1, "permuted": 1}}, "controls.task 'svamp' is not among"),
        ({"controls": {"task": "gsm8k", "random": -1, "permuted": 1}}, "controls.random is -1; it is 0 or more"),
        ({"seed": "zero"}, "seed is 'zero'; it takes a whole number"),
        ({"seed": True}, "seed is 'true'; it takes a whole number"),
        ({"interpolation": float("nan")}, "interpolation is '.nan'; it takes a number"),
        ({"benchmarks": "gsm8k"}, "benchmarks is no list"),
        ({"benchmarks": [{"tasks": ["gsm8k"], "samples": 4}]}, "4 samples of temperature 0"),
        ({"benchmarks": [{"tasks": ["gsm8k", "gsm8k"]}]}, "gsm8k is there twice"),
        ({"dev": {"task": "asdiv", "alphas": [0.0, 1.0]}}, "dev.alphas needs one value or more, none of them 0"),
        ({"dev": {"task": "asdiv", "alphas": [1.0, "x"]}}, r"dev.alphas\[1\] is 'x'; it takes a number"),
        ({"donors": {}}, "donors holds neither `trained` nor `public`"),
        ({"donors": [1]}, "donors is no map of fields"),
        ({"engine": "sglang"}, "engine is 'sglang'; it is transformers or vllm"),
        ({"perturbations": [{"task": "gsm8k", "operator": "tpyo", "severity": 1}]}, "there is no operator 'tpyo'"),
        ({"out": "--force"}, "out is '--force', which can name nothing"),
        ({"out": "a\nb"}, "which can name nothing"),
        ({"name": ["a"]}, "name holds more than one value"),
    ],
)
def test_what_a_recipe_may_not_hold_is_told_by_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(recipe_file.RecipeError, match=words):
        recipe_file.read_recipe(write(tmp_path / "r.yaml", **change))


def test_all_that_is_wrong_is_told_at_once_and_what_is_no_recipe_too(tmp_path: Path) -> None:
    file = write(tmp_path / "r.yaml", seed="x", engin="vllm", bare=3)
    with pytest.raises(recipe_file.RecipeError) as caught:
        recipe_file.read_recipe(file)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    numbers = [int(line.split()[1].rstrip(":")) for line in lines[1:]]
    assert [file.read_text().splitlines()[number - 1].partition(":")[0] for number in numbers] == [
        "bare", "engin", "seed",
    ]  # fmt: skip
    file.write_text("name: a\nname: b\n")
    with pytest.raises(recipe_file.RecipeError, match="line 2: name is there twice"):
        recipe_file.read_recipe(file)
    for text in ("", "- 1", "a: [", "!!python/object/apply:os.system [ls]", "\0"):
        file.write_text(text)
        with pytest.raises(recipe_file.RecipeError):
            recipe_file.read_recipe(file)


STAND_IN = """
import json, pathlib, sys
words = sys.argv[1:]
with open("called.jsonl", "a") as file: file.write(json.dumps(words) + "\\n")
fail = json.loads(pathlib.Path("fail.json").read_text()) if pathlib.Path("fail.json").exists() else {}
for word, status in fail.items():
    if word in " ".join(words): sys.exit(status)
out = pathlib.Path(words[words.index("--out") + 1]) if "--out" in words else None
if words[0] == "train": out.mkdir(parents=True); (out / "training.json").write_text("{}")
elif words[0] in ("extract", "control"): pathlib.Path(out).mkdir()
elif words[0] == "perturb": out.write_text("")
elif "--plot" in words: pathlib.Path(words[-1]).write_text("")
elif words[0] == "evaluate":
    from reasonvec.evaluation.runs import Outcome, open_run
    alpha = words[words.index("--alpha") + 1] if "--alpha" in words else None
    with open_run(out, json.loads(pathlib.Path("run.json").read_text()), resume="--resume" in words) as recorder:
        recorder.append([Outcome(f"p{i}", "t", 0, "0" * 64, i < 5 + (alpha == "0.5")) for i in range(10)])
        recorder.finish({})
"""
RUN = {"format": "reasonvec run", "format_version": 1, "arm": {}, "benchmark": {"task": "t"}, "prompt": {},
       "sampling": {}, "engine": {}}  # fmt: skip


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which every program is one that notes its arguments and makes what the real one would."""
    (tmp_path / "program.py").write_text(STAND_IN)
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(script, "_program", lambda name: [sys.executable, str(tmp_path / "program.py")])
    write(tmp_path / "r.yaml")
    return tmp_path


def called(root: Path) -> list[list[str]]:
    file = root / "called.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_a_run_does_all_in_order_and_again_only_what_leaves_nothing_behind(stand_in: Path) -> None:
    script.main(["r.yaml", "--run"])
    words = called(stand_in)
    names = [w[0] if w[0] != "train" else f"train {w[1]}" for w in words]
    assert list(dict.fromkeys(names)) == [
        "overlap", "train sft", "train grpo", "trajectory", "extract", "inspect", "check", "control", "evaluate",
        "perturb", "stats",
    ]  # fmt: skip
    assert json.loads((stand_in / "out/trained/alpha.json").read_text())["alpha"] == 0.5
    alphas = {Path(w[w.index("--out") + 1]).name: w[w.index("--alpha") + 1] for w in words if "--alpha" in w}
    assert (alphas["vector"], alphas["minus"], alphas["vector-1"]) == ("0.5", "-0.5", "1")
    assert (alphas["random-2"], alphas["sft-update"], alphas["interpolation"]) == ("0.5", "1", "0.5")
    assert not any("ALPHA" in word or "{alpha}" in word for line in words for word in line)
    script.main(["r.yaml", "--run"])
    assert {w[0] for w in called(stand_in)[len(words) :]} == {"overlap", "check", "stats"}


def test_a_run_stops_at_the_first_failure_and_goes_on_from_there(stand_in: Path) -> None:
    (stand_in / "fail.json").write_text('{"train grpo": 1}')
    with pytest.raises(SystemExit, match="recipe: that command ended with status 1, so the recipe stops there"):
        script.main(["r.yaml", "--run"])
    assert called(stand_in)[-1][:2] == ["train", "grpo"]
    (stand_in / "fail.json").unlink()
    (stand_in / "out/trained/grpo").mkdir()
    (stand_in / "out/trained/grpo/plan.json").write_text("{}")  # it had begun
    before = len(called(stand_in))
    (stand_in / "fail.json").write_text('{"train grpo": 1}')
    with pytest.raises(SystemExit):
        script.main(["r.yaml", "--run"])
    again = called(stand_in)[before:]
    assert [w[:2] for w in again if w[0] == "train"] == [["train", "grpo"]] and again[-1][-1] == "--resume"


def test_overlap_is_told_and_a_vector_that_does_not_fit_stops(stand_in: Path) -> None:
    (stand_in / "fail.json").write_text('{"overlap": 3, "check": 3}')
    with pytest.raises(SystemExit, match="ended with status 3"):
        script.main(["r.yaml", "--run"])
    assert called(stand_in)[-1][0] == "check"


def test_one_step_can_be_run_alone_and_alpha_needs_its_runs(stand_in: Path) -> None:
    with pytest.raises(SystemExit, match="alpha-0.5 is not there or not whole; alpha is chosen when all of step dev"):
        script.main(["r.yaml", "--alpha"])
    with pytest.raises(SystemExit, match=r"alpha.json is not there: run the steps dev and alpha first"):
        script.main(["r.yaml", "--run", "--only", "arms"])
    before = len(called(stand_in))
    script.main(["r.yaml", "--run", "--only", "dev"])
    assert {w[w.index("--split") + 1] for w in called(stand_in)[before:]} == {"dev"}


def test_of_equally_good_alphas_the_smallest_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = recipe_file.read_recipe(write(tmp_path / "r.yaml", dev={"task": "asdiv", "alphas": [1.5, -1, 0.25, 1.0]}))
    for alpha, right in (("1.5", 7), ("-1", 2), ("0.25", 6), ("1", 7)):
        with open_run(Path("out/runs/dev") / f"alpha-{alpha}", RUN, resume=False) as recorder:
            recorder.append([Outcome(f"p{i}", "t", 0, "0" * 64, i < right) for i in range(10)])
            recorder.finish({})
    assert script.choose_alpha(recipe)["alpha"] == 1.0


def test_results_of_two_recipes_or_two_kinds_of_donors_are_never_mixed(stand_in: Path) -> None:
    script.main(["r.yaml", "--run", "--only", "donors"])
    write(stand_in / "r.yaml", expect={"machine": "another", "hours": {"dev": 1.0}, "memory_gb": {}})
    script.main(["r.yaml", "--run", "--only", "donors"])  # what it is thought to cost changes nothing
    write(stand_in / "r.yaml", seed=1)
    with pytest.raises(SystemExit, match=r"out/trained/recipe.yaml is another recipe than r.yaml.*Name another `out`"):
        script.main(["r.yaml", "--run"])
    assert "--donors public --alpha" in printed(REPOSITORY / "recipes/qwen2.5-7b-gsm8k.yaml", "--donors", "public")
    public = printed(REPOSITORY / "recipes/qwen2.5-7b-gsm8k.yaml", "--donors", "public")
    assert "runs/qwen2.5-7b-gsm8k/trained" not in public and "whether it overlaps the benchmarks is open" in public


def test_public_donors_are_not_trained_and_what_a_recipe_lacks_is_told(stand_in: Path) -> None:
    public = {"sft": "a/sft", "grpo": "a/grpo", "ancestor": "a/base", "target": "a/target"}
    write(stand_in / "p.yaml", donors={"public": public})
    words = [list(command.words) for command in
             script.commands(recipe_file.read_recipe(stand_in / "p.yaml"), Path("p.yaml"), "public")]  # fmt: skip
    assert not any(w[1:2] == ["train"] or w[1:2] == ["trajectory"] for w in words)
    extract = next(w for w in words if w[1:2] == ["extract"])
    assert extract[2:8] == ["--tuned", "a/grpo", "--base", "a/sft", "--ancestor", "a/base"]
    with pytest.raises(SystemExit, match="small names no public donors; it has --donors trained"):
        script.main(["r.yaml", "--donors", "public"])
    with pytest.raises(SystemExit, match="small trains no donors; it has --donors public"):
        script.main(["p.yaml", "--donors", "trained"])
