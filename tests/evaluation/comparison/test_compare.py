"""From runs on disk to evidence: what is compared with what, what is refused, and the words beside the numbers."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from reasonvec.errors import RunError
from reasonvec.evaluation.comparison import compare_runs
from reasonvec.evaluation.statistics import holm, paired_difference

from .build import BASELINE, PLAIN, THINK, flipped, outcome, outcomes, perturbed, write_run


def _study(path: Path) -> Path:
    """A target, two alphas, a control, both prompts and a repeat."""
    write_run(path / "target", BASELINE)
    write_run(path / "half", flipped(BASELINE, gained=9, lost=4), vector="v", alpha=0.5)
    write_run(path / "whole", flipped(BASELINE, gained=20, lost=3), vector="v", alpha=1.0)
    write_run(path / "whole-think", flipped(BASELINE, gained=25, lost=3), vector="v", alpha=1.0, prompt=THINK)
    write_run(path / "think", flipped(BASELINE, gained=10, lost=2), prompt=THINK)
    write_run(path / "random-1", flipped(BASELINE, gained=4, lost=4), vector="r", alpha=1.0,
              control="random")  # fmt: skip
    write_run(path / "target-again", flipped(BASELINE, gained=1, lost=2))
    return path


def test_every_arm_stands_against_the_one_without_vector_and_prompt(tmp_path: Path) -> None:
    (table,) = compare_runs([_study(tmp_path)]).tables
    assert table.baseline is not None and table.baseline.name == "target"
    found = {(one.arm.name, one.baseline.name): one.role for one in table.contrasts}
    assert found == {
        ("half", "target"): "confirmatory",
        ("whole", "target"): "confirmatory",
        ("think", "target"): "confirmatory",
        ("whole-think", "think"): "confirmatory",
        ("whole-think", "target"): "confirmatory",
        ("random-1", "target"): "control",
        ("target-again", "target"): "repeat",
    }
    assert table.arms[0][0].name == "target"
    assert table.arms[-1][0].name == "random-1"


def test_the_numbers_are_those_of_the_pairs(tmp_path: Path) -> None:
    (table,) = compare_runs([_study(tmp_path)]).tables
    whole = next(one for one in table.contrasts if one.arm.name == "whole")
    expected = paired_difference(flipped(BASELINE, gained=20, lost=3), BASELINE)
    assert (whole.n, whole.gained, whole.lost) == (100, 20, 3)
    assert whole.difference.points == pytest.approx(17.0)
    assert whole.difference.interval is not None
    assert (whole.difference.interval.low, whole.difference.interval.high) == (expected.low, expected.high)
    assert (whole.p, whole.detectable) == (expected.p, expected.detectable)
    # mean ± 1.96·sqrt(s²/n) with s² = (b + c - (b - c)²/n) / (n - 1)
    reach = 100 * 1.959964 * ((23 - 17**2 / 100) / 99 / 100) ** 0.5
    assert whole.analytic is not None and whole.bootstrap is not None
    assert (whole.analytic.low, whole.analytic.high) == pytest.approx((17 - reach, 17 + reach))
    assert (whole.bootstrap.low, whole.bootstrap.high) == pytest.approx((17 - reach, 17 + reach), abs=1.5)


def test_the_family_is_every_confirmatory_difference_of_the_call(tmp_path: Path) -> None:
    _study(tmp_path / "gsm8k")
    write_run(tmp_path / "sciq" / "target", BASELINE, task="sciq")
    write_run(tmp_path / "sciq" / "whole", flipped(BASELINE, gained=12, lost=1), task="sciq", vector="v", alpha=1.0)
    comparison = compare_runs([tmp_path])
    members = [one for table in comparison.tables for one in table.contrasts if one.role == "confirmatory"]
    assert comparison.family == len(members) == 6
    assert [one.holm_p for one in members] == list(holm([one.p for one in members]))
    others = [one for table in comparison.tables for one in table.contrasts if one.role != "confirmatory"]
    assert {one.holm_p for one in others} == {None}


def test_differences_on_the_development_part_are_exploratory(tmp_path: Path) -> None:
    dev = {"split": {"part": "dev", "seed": 0}}
    write_run(tmp_path / "target", BASELINE, benchmark=dev)
    for alpha, gained in ((0.5, 12), (1.0, 15), (1.5, 9)):
        verdicts = flipped(BASELINE, gained=gained, lost=2)
        write_run(tmp_path / f"plus-{alpha}", verdicts, vector="v", alpha=alpha, benchmark=dev)
    comparison = compare_runs([tmp_path])
    (table,) = comparison.tables
    assert comparison.family == 0
    assert {one.role for one in table.contrasts} == {"exploratory"}
    assert any("exploratory" in note and "confirm" in note for note in table.notes)
    (sweep,) = table.sweeps
    assert (sweep.best, sweep.alphas, sweep.points) == ("plus-1.0", 3, pytest.approx(13.0))
    assert 0 < sweep.optimism < 4  # below the standard error of one difference, about 4 points


def test_a_vector_is_ranked_among_controls_at_its_own_alpha(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "plus", flipped(BASELINE, gained=20, lost=3), vector="v", alpha=1.0)
    write_run(tmp_path / "minus", flipped(BASELINE, gained=1, lost=9), vector="v", alpha=-1.0)
    for number, (gained, lost) in enumerate(((20, 3), (2, 2), (5, 1), (0, 4))):
        verdicts = flipped(BASELINE, gained=gained, lost=lost)
        write_run(tmp_path / f"random-{number}", verdicts, vector=f"r{number}", alpha=1.0, control="random",
                  checkpoint=f"target+r{number}", arm={"target": "target"})  # fmt: skip
    verdicts = flipped(BASELINE, gained=0, lost=20)
    write_run(tmp_path / "random-minus", verdicts, vector="r0", alpha=-1.0, control="random")
    (table,) = compare_runs([tmp_path]).tables
    ranks = {rank.arm: (rank.controls, rank.as_good, rank.p) for rank in table.ranks}
    assert ranks == {"plus": (4, 1, 2 / 5), "minus": (1, 1, 1.0)}


def test_a_named_baseline_stands_for_its_arm_on_every_benchmark(tmp_path: Path) -> None:
    for task in ("gsm8k", "sciq"):
        write_run(tmp_path / task / "sft", BASELINE, checkpoint="sft", task=task)
        write_run(tmp_path / task / "grpo", flipped(BASELINE, gained=8, lost=1), checkpoint="grpo", task=task)
    comparison = compare_runs([tmp_path], baseline=tmp_path / "gsm8k" / "sft")
    assert [(one.arm.checkpoint, one.baseline.checkpoint) for table in comparison.tables
            for one in table.contrasts] == [("grpo", "sft")] * 2  # fmt: skip


def test_a_baseline_that_a_benchmark_lacks_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "other", BASELINE, task="sciq", vector="v", alpha=1.0)
    with pytest.raises(
        RunError, match=r"sciq \(test\) was not measured with the baseline's arm \(target\): measure it there"
    ):
        compare_runs([tmp_path], baseline=tmp_path / "target")


def test_options_compared_by_likelihood_have_one_prompt(tmp_path: Path) -> None:
    """So the baseline's arm, named by a run with a prompt, is found there too."""
    likelihood = {"name": "log-likelihood"}
    for name, fields in (("target", {}), ("whole", {"vector": "v", "alpha": 1.0})):
        write_run(tmp_path / "gsm8k" / name, BASELINE, prompt=THINK, **fields)
        write_run(tmp_path / "sciq" / name, BASELINE, task="sciq", prompt=likelihood, **fields)
    for baseline in (tmp_path / "gsm8k" / "target", None):
        tables = compare_runs([tmp_path], baseline=baseline).tables
        assert [len(table.contrasts) for table in tables] == [1 if baseline else 0, 1]


def test_a_perturbed_file_keeps_its_variant(tmp_path: Path) -> None:
    changed = {**perturbed("typo"), "task": "typo.jsonl:written"}
    write_run(tmp_path / "run", BASELINE, benchmark=changed)
    (table,) = compare_runs([tmp_path]).tables
    assert table.setting.title == "gsm8k:written (test), typo, severity 1, seed 0"


def test_a_directory_is_no_baseline(tmp_path: Path) -> None:
    write_run(tmp_path / "all" / "target", BASELINE)
    with pytest.raises(RunError, match="is a directory of runs, and one run is the baseline"):
        compare_runs([tmp_path], baseline=tmp_path / "all")


def test_without_one_clear_baseline_nothing_is_compared_and_the_note_says_why(tmp_path: Path) -> None:
    write_run(tmp_path / "a", BASELINE, checkpoint="a")
    write_run(tmp_path / "b", BASELINE, checkpoint="b")
    (table,) = compare_runs([tmp_path]).tables
    assert table.baseline is None and table.contrasts == ()
    assert table.notes == ("no differences, for want of a baseline: a, b could each be it. Name one by --baseline",)


def test_the_checkpoint_that_vectors_were_added_to_is_the_baseline_among_donors(tmp_path: Path) -> None:
    write_run(tmp_path / "grpo", BASELINE, checkpoint="grpo")
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole", flipped(BASELINE, gained=8, lost=1), vector="v", alpha=1.0)
    (table,) = compare_runs([tmp_path]).tables
    assert table.baseline is not None and table.baseline.name == "target"


def test_everything_that_forbids_a_comparison_is_said_at_once(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "a", BASELINE, vector="v", alpha=1.0, problems_sha256="f" * 64)
    write_run(tmp_path / "b", BASELINE, vector="v", alpha=0.5, sampling={"max_new_tokens": 256, "temperature": 0.7})
    write_run(tmp_path / "c", BASELINE, vector="v", alpha=2.0, engine={"dtype": "bfloat16"}, benchmark={"limit": 100})
    with pytest.raises(RunError) as error:
        compare_runs([tmp_path])
    text = str(error.value)
    assert "cannot be compared, for 3 reasons" in text
    assert 'benchmark.problems_sha256 ("ffff' in text
    assert "sampling.temperature (0.7, 0.0); sampling.max_new_tokens (256, 1024)" in text
    assert 'benchmark.limit (100, null); engine.dtype ("bfloat16", "float32")' in text


def test_unfinished_runs_are_refused_with_the_way_to_finish_them(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "half", BASELINE[:37], complete=False, problems=100, vector="v", alpha=1.0)
    with pytest.raises(RunError, match=r"half is unfinished: 37 of 100 completions are there.*--resume"):
        compare_runs([tmp_path])


def test_what_is_missing_of_an_unfinished_run_is_counted_in_completions(tmp_path: Path) -> None:
    sampled = [outcome(f"p{place}", True, sample=sample) for place in range(20) for sample in (0, 1)]
    write_run(tmp_path / "target", sampled, problems=20)
    write_run(
        tmp_path / "cut", sampled[:-1], complete=False, problems=20, sampling={"samples": 2}, vector="v", alpha=1.0
    )
    write_run(tmp_path / "ended", sampled, complete=False, problems=20, vector="w", alpha=1.0)
    with pytest.raises(RunError) as error:
        compare_runs([tmp_path])
    assert "cut is unfinished: 39 of 40 completions are there" in str(error.value)
    assert "ended is unfinished: all completions are there, but it was ended before it wrote its summary" in str(
        error.value
    )


def test_an_unfinished_run_does_not_hide_what_else_is_wrong(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "half", BASELINE[:37], complete=False, problems=100, vector="v", alpha=1.0,
              engine={"dtype": "bfloat16"})  # fmt: skip
    with pytest.raises(RunError, match=r"for 2 reasons(.|\n)*37 of 100(.|\n)*engine.dtype") as error:
        compare_runs([tmp_path])
    assert "do not pair" not in str(error.value)


@pytest.mark.parametrize(
    ("places", "names"),
    [
        (("target", "vector"), ("target", "vector")),
        (("target/gsm8k", "vector/gsm8k"), ("target", "vector")),
        (("a/target", "b/c/target"), ("a", "b/c")),
        (("target", "again/target"), ("target", "again/target")),
    ],
)
def test_arms_are_named_by_what_tells_their_directories_apart(
    tmp_path: Path, places: tuple[str, ...], names: tuple[str, ...]
) -> None:
    for number, place in enumerate(places):
        write_run(tmp_path / place, BASELINE, vector="v", alpha=1.0 + number)
    (table,) = compare_runs([tmp_path]).tables
    assert tuple(arm.name for arm, _ in table.arms) == names


def test_problems_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "target", outcomes([True, False]))
    write_run(tmp_path / "other", [outcome("p0", True), outcome("p9", True)], vector="v", alpha=1.0)
    with pytest.raises(RunError, match="say that they hold the same problems, but 2 do not pair, first p1"):
        compare_runs([tmp_path])


def test_another_batch_size_or_template_is_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "target", outcomes(BASELINE))
    answers = [replace(one, prompt_sha256="f" * 64) for one in outcomes(flipped(BASELINE, gained=9, lost=2))]
    write_run(tmp_path / "whole", answers, vector="v", alpha=1.0, engine={"batch_size": 64})
    caveats = " | ".join(compare_runs([tmp_path]).tables[0].contrasts[0].caveats)
    assert "measured otherwise than its baseline: engine.batch_size (64, 8)" in caveats
    assert "100 of 100 problems reached the two models as different text" in caveats


@pytest.mark.parametrize(
    ("section", "fields", "text"),
    [
        ("arm", {"checkpoint": 3}, "`arm.checkpoint` is 3"),
        ("arm", {"alpha": "much"}, '`arm.alpha` is "much"'),
        ("prompt", {"name": None}, "`prompt.name` is null"),
        ("benchmark", {"split": {"part": 1}}, "`benchmark.split.part` is 1"),
        ("benchmark", {"perturbation": {"operator": ["x"]}}, r'`benchmark.perturbation.operator` is \["x"\]'),
    ],
)
def test_a_run_that_was_changed_by_hand_is_refused(
    tmp_path: Path, section: str, fields: dict[str, Any], text: str
) -> None:
    run = write_run(tmp_path / "target", BASELINE)
    document = dict(run.configuration)
    document[section] = {**document[section], **fields}
    (run.path / "run.json").write_text(json.dumps(document))
    with pytest.raises(RunError, match=f"run.json is damaged: {text}"):
        compare_runs([tmp_path])


def _caveats(path: Path) -> str:
    return " | ".join(compare_runs([path]).tables[0].contrasts[0].caveats)


def test_a_gain_of_form_alone_is_told_from_one_of_reasoning(tmp_path: Path) -> None:
    """The baseline solves what it answers as well as the arm does, and answers less."""
    solved = [place % 2 == 0 for place in range(100)]
    silent = [outcome(f"p{place}", right and place >= 40, extracted="4" if place >= 40 else None)
              for place, right in enumerate(solved)]  # fmt: skip
    write_run(tmp_path / "target", silent)
    write_run(tmp_path / "whole", solved, vector="v", alpha=1.0)
    (contrast,) = compare_runs([tmp_path]).tables[0].contrasts
    assert contrast.difference.points == pytest.approx(20.0) and contrast.clear
    both = contrast.answered_by_both
    assert both is not None and (both.points, both.problems) == (0.0, 60)
    assert (contrast.answered.arm, contrast.answered.baseline) == (1.0, 0.6)
    assert (
        "an answer was found in 100.0% of its completions and in 60.0% of the baseline's: part of the difference can "
        "be form. On the 60 problems where both gave one it is +0.0 points"
    ) in " | ".join(contrast.caveats)


def test_completions_that_are_cut_off_more_often_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    long = [replace(one, finished=place >= 30) for place, one in enumerate(outcomes(BASELINE))]
    write_run(tmp_path / "whole", long, vector="v", alpha=1.0)
    assert "30.0% of its completions were cut off, and 0.0% of the baseline's" in _caveats(tmp_path)


def test_graders_that_disagree_in_sign_are_named(tmp_path: Path) -> None:
    base = [replace(one, strict=True) for one in outcomes(BASELINE)]
    write_run(tmp_path / "target", base)
    arm = [replace(one, strict=place > 4) for place, one in enumerate(outcomes(flipped(BASELINE, gained=9, lost=1)))]
    write_run(tmp_path / "whole", arm, vector="v", alpha=1.0)
    assert "the harness's strict match says -5.0 points where ours says +8.0" in _caveats(tmp_path)


def test_flips_too_few_for_any_result_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole", flipped(BASELINE, gained=5, lost=0), vector="v", alpha=1.0)
    assert "problems that flipped: 5. Below 6 no result could have p < 0.05" in _caveats(tmp_path)


@pytest.mark.parametrize(("verdict", "text"), [(True, "every problem right, so nothing can be gained"),
                                               (False, "no problem right, so nothing can be lost")])  # fmt: skip
def test_a_baseline_at_an_end_of_the_scale_is_named(tmp_path: Path, verdict: bool, text: str) -> None:
    write_run(tmp_path / "target", [verdict] * 50)
    write_run(tmp_path / "whole", [not verdict] * 10 + [verdict] * 40, vector="v", alpha=1.0)
    assert text in _caveats(tmp_path)


def test_label_noise_is_told_where_it_matters(tmp_path: Path) -> None:
    write_run(tmp_path / "target", [True] * 90 + [False] * 10)
    write_run(tmp_path / "whole", [True] * 97 + [False] * 3, vector="v", alpha=1.0)
    assert "1,209 of 1,319" in _caveats(tmp_path)


def test_two_things_changed_at_once_are_not_put_down_to_the_vector(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "whole-think", flipped(BASELINE, gained=20, lost=1), vector="v", alpha=1.0, prompt=THINK)
    assert "model and prompt both differ (think; plain), so the difference is that of both" in _caveats(tmp_path)


def test_problems_that_a_donor_was_trained_on_are_told_and_left_out_beside_it(tmp_path: Path) -> None:
    """All ten gains are on problems that stand in the training data."""
    write_run(tmp_path / "target", BASELINE)
    overlap = {"overlapping": 25, "counts": {"exact": 10}, "ids": [f"p{place}" for place in range(90, 100)]}
    arm = flipped(BASELINE, gained=10, lost=0)
    write_run(tmp_path / "whole", arm, vector="v", alpha=1.0, contamination=overlap)
    assert (
        "25 of the 100 problems overlap training data, so that a gain may be memory. Without those that stand there "
        "whole the difference is +0.0 points"
    ) in _caveats(tmp_path)


def test_a_repeat_shows_how_much_flips_by_itself(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "target-again", flipped(BASELINE, gained=1, lost=2))
    assert "3 of 100 problems came out differently with nothing changed" in _caveats(tmp_path)


def test_tasks_are_strata(tmp_path: Path) -> None:
    tasks = {"bbh/a": 60, "bbh/b": 40}
    ids = [(f"{task}/{number}", task) for task, count in tasks.items() for number in range(count)]
    base = [outcome(id, place % 2 == 0, task=task) for place, (id, task) in enumerate(ids)]
    # +10 problems on a of 60, none on b
    arm = [replace(one, correct=one.correct or place in range(1, 21, 2)) for place, one in enumerate(base)]
    write_run(tmp_path / "target", base, task="bbh")
    write_run(tmp_path / "whole", arm, task="bbh", vector="v", alpha=1.0)
    (contrast,) = compare_runs([tmp_path]).tables[0].contrasts
    assert contrast.difference.points == pytest.approx(10.0)
    assert contrast.macro is not None and contrast.macro.points == pytest.approx(100 * (10 / 60 + 0) / 2)
    error = 100 * ((1 / 6) * (5 / 6) * 60 / 59 / 60) ** 0.5  # of task a; b does not vary
    assert contrast.macro.interval is not None and contrast.stratified is not None
    assert contrast.macro.interval.high == pytest.approx(100 / 12 + 1.959964 * error / 2)
    assert contrast.stratified.high == pytest.approx(10 + 1.959964 * error * 0.6)
    assert contrast.tasks["bbh/b"].points == 0 and contrast.tasks["bbh/b"].interval is None


def test_several_samples_are_compared_by_problem(tmp_path: Path) -> None:
    def answers(shares: Sequence[int]) -> list[Any]:
        return [
            outcome(f"p{n}", sample < share, sample=sample) for n, share in enumerate(shares) for sample in range(4)
        ]

    base, arm = [0, 1, 2, 3, 4, 0, 2, 1], [1, 2, 3, 4, 4, 1, 2, 2]
    sampling = {"temperature": 0.7}
    write_run(tmp_path / "target", answers(base), sampling=sampling)
    write_run(tmp_path / "whole", answers(arm), vector="v", alpha=1.0, sampling=sampling)
    (contrast,) = compare_runs([tmp_path]).tables[0].contrasts
    assert (contrast.n, contrast.samples, contrast.gained, contrast.mid_p) == (8, 4, None, None)
    assert contrast.difference.points == pytest.approx(100 * 6 / 32)
    assert contrast.p == pytest.approx(2 / 2**6)  # six of eight problems moved, all the same way
    deviation = (sum((x - 6 / 32) ** 2 for x in [0.25] * 6 + [0.0] * 2) / 7) ** 0.5
    assert contrast.detectable == pytest.approx(100 * (1.959964 + 0.841621) * deviation / 8**0.5)


def test_the_same_runs_and_seed_give_the_same_document(tmp_path: Path) -> None:
    study = _study(tmp_path)
    first = json.dumps(compare_runs([study], seed=3).to_json(), allow_nan=False)
    assert json.dumps(compare_runs([study / "whole", study], seed=3).to_json(), allow_nan=False) == first


@pytest.mark.parametrize("verdicts", [[True], [False], [True, False], [True, True, True]])
def test_degenerate_runs_give_finite_numbers_or_none(tmp_path: Path, verdicts: list[bool]) -> None:
    write_run(tmp_path / "target", verdicts)
    write_run(tmp_path / "same", verdicts, vector="v", alpha=1.0)
    write_run(tmp_path / "opposite", [not verdict for verdict in verdicts], vector="v", alpha=2.0)
    document = compare_runs([tmp_path]).to_json()
    json.dumps(document, allow_nan=False)
    same = document["benchmarks"][0]["differences"][0]
    assert (same["arm"], same["points"], same["p"], same["detectable"]) == ("same", 0.0, 1.0, None)
    assert same["low"] < 0 < same["high"]


def test_numbered_controls_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    for number in (10, 9, 1):
        write_run(tmp_path / f"random-{number}", BASELINE, vector=f"r{number}", alpha=1.0, control="random")
    (table,) = compare_runs([tmp_path]).tables
    assert [arm.name for arm, _ in table.arms] == ["target", "random-1", "random-9", "random-10"]


def test_a_negative_alpha_is_not_among_those_that_one_chooses_from(tmp_path: Path) -> None:
    write_run(tmp_path / "target", BASELINE)
    write_run(tmp_path / "plus", flipped(BASELINE, gained=12, lost=2), vector="v", alpha=1.0)
    write_run(tmp_path / "minus", flipped(BASELINE, gained=2, lost=12), vector="v", alpha=-1.0)
    (table,) = compare_runs([tmp_path]).tables
    assert len(table.contrasts) == 2 and table.sweeps == ()


def test_few_flips_of_a_control_are_no_caveat(tmp_path: Path) -> None:
    """Controls are ranked all together; nobody asks whether one of them has a p below 0.05."""
    write_run(tmp_path / "target", BASELINE)
    for name, fields in (("arm", {}), ("random-1", {"control": "random"})):
        write_run(tmp_path / name, flipped(BASELINE, gained=3, lost=0), vector=name, alpha=1.0, **fields)
    (table,) = compare_runs([tmp_path]).tables
    found = {one.arm.name: one.caveats for one in table.contrasts}
    assert found["random-1"] == () and "problems that flipped: 3" in found["arm"][0]


def test_prompts_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Two runs with the plain prompt, one of which had no chat template, are not one prompt."""
    write_run(tmp_path / "target", BASELINE)
    bare = PLAIN | {"chat_template": False}
    write_run(tmp_path / "whole", flipped(BASELINE, gained=9, lost=0), vector="v", alpha=1.0, prompt=bare)
    (table,) = compare_runs([tmp_path]).tables
    assert [arm.asked for arm, _ in table.arms] == ["plain", "plain, bare"]
    assert "(plain, bare; plain)" in table.contrasts[0].caveats[0]


def test_likelihoods_are_said_to_leave_no_room_for_reasoning(tmp_path: Path) -> None:
    likelihood = {"name": "log-likelihood"}
    write_run(tmp_path / "target", BASELINE, prompt=likelihood, task="sciq")
    write_run(tmp_path / "whole", BASELINE, vector="v", alpha=1.0, prompt=likelihood, task="sciq")
    assert "nothing was written" in _caveats(tmp_path)
