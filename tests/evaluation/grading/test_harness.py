"""Strict and flexible, beside the harness's own pipeline: its task file, its filters, its metric."""

import subprocess
import sys
from importlib.resources import files

import pytest
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_metric
from lm_eval.filters import build_filter_ensemble

from reasonvec.errors import MissingExtraError
from reasonvec.evaluation.grading import grade, harness
from tests.evaluation.grading.problems import problem

TASK = yaml.safe_load(files("lm_eval").joinpath("tasks/gsm8k/gsm8k.yaml").read_text())
STRINGS = [
    "#### 18", "####18", "#### 18.", "#### $18", "#### 18.00", "#### 1,800", "#### -18", "#### 18\n#### 19",
    "#### 19\n#### 18", "#### eighteen", "####  18", "### 18", "18", "18.", "18%", "$18", "$18.00", "18.0", "18,",
    "The answer is 18.", "The answer is $18.", "The answer is $18.00.", "so 18 (that is 5 + 13)", "18 eggs. Step 2.",
    "\\boxed{18}", "**18**", "18 or 19", "19 or 18", "-18", "- 18", "3-18", "1 8", "018", "1,8", "18...", "...", "$",
    ",,", "", " ", "none", "[invalid]", "18\n", "１８", "1800 #### 18", "(?s).*#### 18", "18 $ 5 .", "#### 18 #### ",
    "A: 18\n\nQuestion: 5", "\ud800 18", "18" + "," * 5000, "1" * 5000,
]  # fmt: skip


def by_the_harness(name, completion, target):
    filters = next(entry for entry in TASK["filter_list"] if entry["name"] == name)["filter"]
    steps = [(step["function"], {key: step[key] for key in step if key != "function"}) for step in filters]
    instance = Instance("generate_until", {}, ("", {}), 0, ("gsm8k", 0, 1))
    instance.resps = [completion]
    build_filter_ensemble(name, steps).apply([instance])
    (metric,) = TASK["metric_list"]
    settings = {key: metric[key] for key in ("ignore_case", "ignore_punctuation", "regexes_to_ignore")}
    result = get_metric(metric["metric"])(references=[target], predictions=[instance.filtered_resps[name]], **settings)
    return bool(result["exact_match"])


@pytest.mark.parametrize("gold", ["18", "1800", "-18", "18.5"])
@pytest.mark.parametrize("completion", STRINGS, ids=[str(place) for place in range(len(STRINGS))])
def test_both_metrics_are_the_harness_s(completion, gold):
    target = f"Janet sells 9 * 2 = <<9*2=18>>18 eggs.\n#### {int(gold):,}" if gold != "18.5" else "#### 18.5"
    found = grade(problem("number", gold), completion)
    assert found.strict == by_the_harness("strict-match", completion, target)
    assert found.flexible == by_the_harness("flexible-extract", completion, target)


def test_other_kinds_have_neither():
    for kind, gold in (("text", "Yes"), ("expression", "18"), ("choice", "cell")):
        found = grade(problem(kind, gold), "#### 18")
        assert (found.strict, found.flexible) == (None, None)


def test_rewards_are_at_hand_without_the_harness_and_numbers_name_the_pip_line(monkeypatch):
    code = "import reasonvec.evaluation.grading, sys; print({'lm_eval', 'math_verify', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
    monkeypatch.setitem(sys.modules, "lm_eval.api.metrics", None)
    harness._harness.cache_clear()
    with pytest.raises(MissingExtraError, match=r'lm_eval.*, which is not .*pip install "reasonvec\[eval\]"'):
        grade(problem("number", "18"), "18")
