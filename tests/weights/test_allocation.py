"""No file of a stranger makes a reader allocate more than its size and 100 MB, whatever its JSON is like."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import reasonvec
from reasonvec.errors import CheckpointError
from reasonvec.weights.checkpoint import Checkpoint, open_checkpoint
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.findings import beginning, shown
from reasonvec.weights.safetensors_header import format_header, read_header
from reasonvec.weights.strict_json import Budget
from reasonvec.weights.tokenizer import tokenizer_findings
from tests.weights.hostile_json import CASES, SIZE

MOST_BEYOND = 100_000_000
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Every case, read in a process of its own."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak is read from /proc")
    done = subprocess.run(
        [sys.executable, "-m", "tests.weights.hostile_json", str(tmp_path_factory.mktemp("hostile"))],
        cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": f"{Path(reasonvec.__file__).parents[1]}:{ROOT}"},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {tuple(line["case"]): line for line in lines}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_reading_takes_no_more_than_the_files_and_100_mb(measured, case):
    line = measured[case]
    assert line["grown"] < line["bytes"] + MOST_BEYOND
    assert not line["answer"].startswith("not a ReasonvecError"), line["answer"]


def test_what_is_too_large_is_told(measured):
    told = {case: line["answer"] for case, line in measured.items()}
    assert told["index", "floats", SIZE].endswith(
        "index.json is refused: it holds so many values that they would take more than 79108882 bytes of memory, which "
        "is what its size allows; no file of its kind does."
    )
    assert told["index", "one text", SIZE].endswith(
        "index.json is refused: it holds a text or a number that takes more than 8388608 bytes of memory; no file of "
        "its kind does."
    )
    assert "has a header that is refused: it holds so many values" in told["shards", "as few letters as can be", 0]
    assert told["vector", "as few letters as can be", 0] == "Vector", "that many fit"


# what real models have


def expert(number):
    return f"model.layers.{number // 1200}.mlp.experts.{number % 1200 // 3}.{('gate', 'up', 'down')[number % 3]}_proj.w"


def test_140_000_tensors_in_an_index_and_75_000_in_a_header_are_read(tmp_path):
    names = [expert(number) for number in range(140_000)]
    weight_map = {}
    for number, part in enumerate((names[:75_000], names[75_000:])):
        header = format_header([(name, "BF16", (1,)) for name in part], {"format": "pt"})
        (tmp_path / f"{number}.safetensors").write_bytes(header + bytes(2 * len(part)))
        weight_map |= dict.fromkeys(part, f"{number}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}, indent=2))
    assert list(open_checkpoint(tmp_path).tensors) == sorted(names)
    assert list(read_header(tmp_path / "0.safetensors")[0]) == names[:75_000]


def test_a_vocabulary_as_large_as_gemmas_is_compared(tmp_path):
    tokens = [f"▁token{number}é😀" for number in range(262_144)]
    for name, last in (("a", "same"), ("b", "other")):
        (tmp_path / name).mkdir()
        merges = [[f"▁tok{number}", "en"] for number in range(514_000)]
        model = {"type": "BPE", "vocab": {token: n for n, token in enumerate([*tokens, last])}, "merges": merges}
        document = {"added_tokens": [{"id": 262_144, "content": last}], "model": model}
        (tmp_path / name / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, indent=2))
    found = tokenizer_findings(*(Checkpoint(name, tmp_path / name, None, {}) for name in ("a", "b")), True)
    assert [(finding.title, finding.evidence) for finding in found] == [
        ("Tokens were renamed", "1 ids stand for another token: id 262144 is 'same' for the donors and 'other' for the "
                                "target."),
    ]  # fmt: skip


@pytest.fixture
def pair(tmp_path):
    """Two directories with small files as they are given by name."""

    def write(**contents):
        for side in ("a", "b"):
            (tmp_path / side).mkdir(exist_ok=True)
            for name, content in contents.items():
                (tmp_path / side / name.replace("__", ".")).write_text(content(side))
        return [Checkpoint(side, tmp_path / side, None, {}) for side in ("a", "b")]

    return write


def test_a_tokenizer_that_does_not_fit_is_a_finding(pair):
    tokens = ",".join(f'"{number:x}":{number}' for number in range(700_000))
    found = tokenizer_findings(
        *pair(tokenizer__json=lambda side: f'{{"model":{{"vocab":{{{tokens},"{side}":0}}}}}}'), True
    )
    assert [finding.title for finding in found] == ["A tokenizer could not be compared"]
    assert re.fullmatch(r".*/a/tokenizer\.json is refused: it holds so many values that they would take more than \d+ "
                        r"bytes of memory, which is what its size allows; no file of its kind does\.",
                        found[0].evidence)  # fmt: skip


def test_a_configuration_that_does_not_fit_is_refused(pair):
    with pytest.raises(CheckpointError, match=r"a/config\.json is refused: it holds so many values"):
        configuration_findings(*pair(config__json=lambda side: '{"a":[' + "[]," * 400_000 + "0]}"))


def test_fields_whose_names_would_fill_the_memory_are_refused(pair):
    inner = ",".join(f'"{number}":0' for number in range(20_000))
    text = f'{{"{"x" * 5000}":' * 60 + f"{{{inner}}}" + "}" * 60
    with pytest.raises(
        CheckpointError, match=r"a/config\.json nests so many fields so deeply that their names have more"
    ):
        configuration_findings(*pair(config__json=lambda side: text))


def test_a_chat_template_of_more_than_4_mib_is_refused(pair):
    with pytest.raises(CheckpointError, match="chat_template.jinja has 4194305 bytes; at most 4194304 are read"):
        tokenizer_findings(*pair(chat_template__jinja=lambda side: "x" * (4 << 20) + side), True)


def test_what_is_shown_of_a_large_value_is_its_beginning():
    for value in (
        {"a": [1, "b'", None, {}], "c": []},
        ["x" * 200],
        "é\x1b" * 60,
        [[0.5]] * 900,
        {"a" * 90: 1},
        "'" * 9,
    ):
        whole = repr(value)
        assert beginning(value)[:80] == whole[:80]
        assert shown(value) == (whole if len(whole) <= 80 else f"{whole[:76]} ...")


def test_a_budget_is_spent_and_lent():
    budget = Budget(100)
    budget.spend(60)
    with budget.lent():
        budget.spend(40)
    budget.grow(1)
    budget.spend(41)
    assert budget.spent == 101
