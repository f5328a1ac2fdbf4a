"""The page as a file: whole or not at all, nothing of the data taken for markup, good with much left out."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from reasonvec.errors import OutputError
from reasonvec.report import write_report
from reasonvec.report.page import render_report

from .build import difference, results
from .sample import PROVENANCE, STORY, sample_results, sample_vector

STYLE = (Path(__file__).parents[2] / "src/reasonvec/report/page.css").read_text()


class Words(HTMLParser):
    """The words a reader sees, without scripts and styles; the tags, and the JSON elements apart."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.tags, self.json = "", list[str](), ""
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = "json" if ("type", "application/json") in attrs else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "json":
            self.json += data
        elif self._inside not in ("script", "style"):
            self.words += data


def read(page: str) -> Words:
    parser = Words()
    parser.feed(page)
    parser.words = re.sub(r"\s+", " ", parser.words)
    return parser


@pytest.fixture(scope="module")
def sample_page() -> str:
    return render_report(results=sample_results(), story=STORY, vector=sample_vector(), provenance=PROVENANCE)


def test_the_answer_and_the_caveat_stand_before_every_number(sample_page: str) -> None:
    words = read(sample_page).words
    answer, caveat = words.index("Yes, it helped"), words.index("This is a toy world with a planted habit.")
    first_number, steps = words.index("hard to explain by luck"), words.index("Train one ancestor")
    assert words.index(STORY["title"], 100) < answer < caveat < first_number < steps


def test_everything_that_was_asked_for_is_on_the_page(sample_page: str) -> None:
    words = read(sample_page).words
    for wanted in (
        "How much of the vector to add", "Every model measured", "Differences, row by row", "Worked examples",
        "Inside the vector", "What this does not show", "Where it comes from", "reasonvec demo --seed 0",
        "How to read this.", "sha256:0000", "GRPO donor against SFT donor", "4 min 3 s", "2.13.0",
    ):  # fmt: skip
        assert wanted in words.replace("\u00a0", " "), wanted


def test_the_same_results_give_the_same_bytes(sample_page: str) -> None:
    again = render_report(results=sample_results(), story=STORY, vector=sample_vector(), provenance=PROVENANCE)
    assert again == sample_page


def test_the_page_names_no_other_place(sample_page: str) -> None:
    own_words = re.sub(r"<script(?! type)>.*?</script>", "", sample_page, flags=re.DOTALL)
    assert "http:" not in own_words
    assert "https:" not in own_words
    assert "default-src &#39;none&#39;" in own_words


def test_data_cannot_leave_its_json_element() -> None:
    hostile = "</script><!--<script>\u2028&"
    given = results(difference("target+1.0v", 18.0), difference(hostile, 0.0))
    page = read(render_report(results=given, story={"title": hostile}, vector=None, provenance=()))
    assert page.tags.count("script") == 3
    assert any("&lt;/script&gt;" in label for label in json.loads(page.json)["bars-0"]["layout"]["yaxis"]["ticktext"])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"arms": [], "differences": []},
        {"arms": [{"arm": "target", "kind": "gsm8k", "n": 0, "correct": 0}]},
        {"arms": [{"arm": "target", "kind": "gsm8k", "n": 9, "correct": 4}], "seconds": 3},
        results(difference("target+0.5v", 2.0)),
        results(
            difference("target+1.0v", 18.0), examples=[{}], versions={"items": "1"}, command="reasonvec report RUN"
        ),
    ],
)
def test_much_may_be_missing(given: dict[str, Any]) -> None:
    vectors: tuple[dict[str, Any] | None, ...] = (
        None,
        {},
        {"tensors": [{}]},
        {"kinds": [{"kind": "q"}], "layers": [{}], "tensors": [{"norm": None}]},
    )
    for vector in vectors:
        words = read(render_report(results=given, story={}, vector=vector, provenance=[{}])).words
        assert "The short answer" in words
        assert given.get("command", "") in words
        assert "None" not in words


def test_not_a_number_is_refused_rather_than_written_into_a_page_that_cannot_be_drawn() -> None:
    vector = {"tensors": [{"kind": "q", "layer": 0, "norm": 1e308, "relative_norm": 1e-308}]}
    with pytest.raises((ValueError, OverflowError)):
        render_report(results={}, story={}, vector=vector, provenance=())


def test_an_existing_report_is_replaced_in_one_step(tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")
    write_report(out=out, results={}, story=STORY)
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_failure_while_writing_leaves_the_old_report_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "report.html"
    out.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"report\.html could not be written: No space left on device"):
        write_report(out=out, results={}, story=STORY)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_directory_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="could not be written"):
        write_report(out=tmp_path / "missing" / "report.html", results={}, story=STORY)


@pytest.mark.parametrize("absent", ["jinja2", "plotly", "statsmodels"])
def test_a_missing_extra_is_named_with_the_line_that_installs_it(absent: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None\nimport reasonvec.report"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith("reasonvec.errors.MissingExtraError: The report needs the Python")
    assert absent in ended.stderr.splitlines()[-1]
    assert 'pip install "reasonvec[report]"' in ended.stderr


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_colours_have_the_contrast_that_wcag_asks_for(scheme: str) -> None:
    light, dark = re.findall(r"\{([^{}]*--surface:[^{}]*)\}", STYLE)
    colours = dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", dark if scheme == "dark" else light))
    on_page = [
        ("ink", "surface"),
        ("muted", "surface"),
        ("link", "surface"),
        ("enhanced", "surface"),
        ("loss", "surface"),
    ]
    on_panels = [
        ("ink", "raised"),
        ("enhanced", "raised"),
        ("loss", "raised"),
        ("caveat-ink", "caveat"),
        ("ink", "mark"),
    ]
    for text, ground in (*on_page, *on_panels):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for shape in ("enhanced", "loss", "control-mark", "whisker"):
        assert contrast(colours[shape], colours["surface"]) >= 3, shape


def contrast(first: str, second: str) -> float:
    """WCAG 2.2's contrast ratio, from its definition of relative luminance."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
