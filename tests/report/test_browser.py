"""The page in a real Chromium: drawn, quiet, offline, readable at two widths and in two schemes, safe with any data."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from reasonvec.report import write_report

from .browser import Browser, Sight
from .build import difference, results
from .sample import PROVENANCE, STORY, sample_results, sample_vector

pytestmark = pytest.mark.browser

HOSTILE = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)><!-- "
    '{{7*7}} "\'> <a href="https://evil.example">x</a> %{x} $ink'
)


@pytest.fixture(scope="module")
def sample_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sample") / "report.html"
    write_report(out=out, results=sample_results(), story=STORY, vector=sample_vector(layers=28), provenance=PROVENANCE)
    return out


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hostile") / "report.html"
    write_report(out=out, **hostile_documents())
    return out


def hostile_documents() -> dict[str, Any]:
    """Every string of every document hostile, kept apart by what follows."""
    enhanced = difference("target+1.0v", 18.0, kind=HOSTILE)
    given = results(enhanced, difference(HOSTILE, 1.0, kind=HOSTILE), {**difference("a", 1.0), "baseline": HOSTILE})
    given["kinds"] = [
        {"name": HOSTILE, "title": HOSTILE, "description": HOSTILE, "example": HOSTILE, "seen_by_target": True},
        {"name": "start", "title": HOSTILE, "description": HOSTILE, "example": HOSTILE},
    ]
    given["examples"] = [
        {"kind": HOSTILE, "problem": HOSTILE, "gold": HOSTILE, "correct": {"target": False},
         "completions": {"target": HOSTILE, "target+1.0v": f"{HOSTILE} 9", HOSTILE: HOSTILE}}
    ]  # fmt: skip
    given |= {
        "versions": {HOSTILE: HOSTILE},
        "stages": {HOSTILE: 1.0},
        "seed": HOSTILE,
        "command": HOSTILE,
        "seconds": 1,
    }
    tensor = {"name": HOSTILE, "layer": 0, "kind": HOSTILE, "norm": 1.0, "relative_norm": 0.1,
              "steps": {"bins": [HOSTILE], "counts": [3]}, "energy": {HOSTILE: 0.5}}  # fmt: skip
    return {
        "results": given,
        "story": {"title": HOSTILE, "lead": HOSTILE, "caveat": HOSTILE,
                  "steps": [{"title": HOSTILE, "text": HOSTILE, "result": HOSTILE}]},
        "vector": {"name": HOSTILE, "tensors": [tensor], "kinds": [{"kind": HOSTILE}], "layers": [{"layer": HOSTILE}]},
        "provenance": [dict.fromkeys(("role", "name", "fingerprint", "revision", "detail"), HOSTILE)],
    }  # fmt: skip


# the second line of the curve's plot: the first is the edge of the interval's band
CURVE_COLOUR = "getComputedStyle([...document.querySelectorAll('[data-figure^=curve] .js-line')].at(-1)).stroke"
DRAWN = "[...document.querySelectorAll('[data-figure]')].filter((plot) => plot.querySelector('svg .trace, svg .hm'))"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_drawn_in_silence_and_offline(browser: Browser, sample_page: Path, width: int, dark: bool) -> None:
    sight = browser.open(sample_page, width=width, dark=dark)
    assert sight.problems == []
    assert sight.requests[0] == sample_page.as_uri()
    assert all(address.startswith("data:") for address in sight.requests[1:])
    assert sight.evaluate("document.documentElement.dataset.errors") == "0"
    # one curve, ten panels, one bar chart, the heat map, the histogram
    assert sight.evaluate("document.querySelectorAll('[data-figure]').length") == 14
    assert sight.evaluate(f"{DRAWN}.length") == 14
    assert sight.evaluate("document.documentElement.scrollWidth") == width
    assert sight.evaluate(OUTSIDE_THEIR_BOX) == []


# elements that stick out of the page and are in no box that scrolls or clips
OUTSIDE_THEIR_BOX = """[...document.querySelectorAll('main *')]
  .filter((e) => !e.closest('.scroll, .plot, .visually-hidden') && e.checkVisibility())
  .filter((e) => e.getBoundingClientRect().right > innerWidth + 1)
  .map((e) => e.outerHTML.slice(0, 80))"""


def test_plots_follow_the_colour_scheme_when_it_changes(browser: Browser, sample_page: Path) -> None:
    colour = "getComputedStyle(document.querySelector('[data-figure] .xtick text')).fill"
    sight = browser.open(sample_page, dark=False)
    assert (sight.evaluate(colour), sight.evaluate(CURVE_COLOUR)) == ("rgb(86, 97, 107)", "rgb(15, 118, 132)")
    browser.set_scheme(dark=True)
    sight.wait_for(f"{colour} === 'rgb(160, 171, 178)' && {CURVE_COLOUR} === 'rgb(79, 184, 197)'")
    assert sight.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 24, 27)"
    assert sight.problems == []


def test_on_paper_the_page_is_light(browser: Browser, sample_page: Path) -> None:
    sight = browser.open(sample_page, dark=True)
    sight.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    sight.wait_for(f"{CURVE_COLOUR} === 'rgb(15, 118, 132)'")
    sight.evaluate("window.dispatchEvent(new Event('afterprint'))")
    sight.wait_for(f"{CURVE_COLOUR} === 'rgb(79, 184, 197)'")


def test_choosing_a_kind_changes_the_plot_and_what_it_says_of_itself(browser: Browser, sample_page: Path) -> None:
    sight = browser.open(sample_page)
    label = "document.querySelector('[data-figure^=curve]').getAttribute('aria-label')"
    assert "Instructions" in sight.evaluate(label)
    sight.evaluate(
        "const s = document.getElementById('curve-kind'); s.value = 'curve-2'; s.dispatchEvent(new Event('change'))"
    )
    assert "Other small tasks" in sight.evaluate(label)
    assert sight.problems == []


def test_it_can_be_read_without_eyes_and_without_a_mouse(browser: Browser, sample_page: Path) -> None:
    sight = browser.open(sample_page)
    assert sight.evaluate("document.querySelectorAll('h1').length") == 1
    levels = sight.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => Number(h.tagName[1]))")
    assert all(after <= before + 1 for before, after in pairwise(levels))
    unnamed = {
        "tables": "[...document.querySelectorAll('table')].filter((t) => !t.caption?.textContent.trim())",
        "header cells": "[...document.querySelectorAll('th')].filter((h) => !h.scope)",
        "plots": "[...document.querySelectorAll('[data-figure]')].filter((p) => !p.getAttribute('aria-label'))",
        "choices": "[...document.querySelectorAll('select')].filter((s) => !s.labels.length)",
        "scrolling boxes": "[...document.querySelectorAll('.scroll')].filter((s) => s.tabIndex || !s.ariaLabel)",
        "targets of links": "[...document.querySelectorAll('nav a')].filter((a) => !document.querySelector(a.hash))",
    }  # fmt: skip
    for what, query in unnamed.items():
        assert sight.evaluate(f"{query}.length") == 0, what
    assert sight.evaluate("document.querySelectorAll('main, nav[aria-label]').length") == 2


def test_hostile_strings_are_shown_and_not_run(browser: Browser, hostile_page: Path) -> None:
    sight = browser.open(hostile_page, width=390)
    assert sight.problems == []
    assert all(address.startswith(("file:", "data:")) for address in sight.requests)
    assert count(sight, "script") == 3
    assert count(sight, "img, iframe, object, embed, [onerror], [onload]") == 0
    assert count(sight, "a:not([href^='#']), base, form") == 0
    assert count(sight, "svg a") == 0
    words = sight.evaluate("document.body.innerText")
    assert words.count(HOSTILE) > 10
    assert "49" not in words
    plotted = sight.evaluate("[...document.querySelectorAll('.plot svg text')].map((t) => t.textContent).join('|')")
    assert f"{HOSTILE[:23]}…" in plotted
    assert sight.evaluate("document.documentElement.scrollWidth") == 390


def test_an_injected_script_or_request_would_be_refused(browser: Browser, sample_page: Path) -> None:
    """The last line of defence: what the content security policy does, were an escape ever missed."""
    sight = browser.open(sample_page)
    sight.evaluate(
        "const s = document.createElement('script'); s.textContent = 'window.ran = true'; document.body.append(s)"
    )
    assert sight.evaluate("window.ran === undefined")
    assert sight.evaluate("fetch('https://example.org/').then(() => 'sent', () => 'refused')") == "refused"
    assert not [address for address in sight.requests if address.startswith("http")]


def test_the_barest_page_is_quiet_too(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "report.html"
    write_report(out=out, results={}, story={})
    sight = browser.open(out, width=390)
    assert sight.problems == []
    assert "These results do not say whether the vector helped." in sight.evaluate("document.body.innerText")


def count(sight: Sight, selector: str) -> Any:
    return sight.evaluate(f"document.querySelectorAll({selector!r}).length")
