"""Figures are what plotly accepts, and say what was measured. plotly's own Python validator is the oracle of form."""

import json
import re

import plotly.graph_objects
import pytest

from reasonvec.report import anatomy, figures
from reasonvec.report.figures import Figure
from reasonvec.report.measurements import read_measurements

from .sample import ALPHAS, sample_results, sample_vector

READ = read_measurements(sample_results())


def every_figure() -> dict[str, Figure]:
    heat_map, histogram = anatomy.heat_map(sample_vector()), anatomy.step_histogram(sample_vector(layers=1))
    large = anatomy.heat_map(sample_vector(layers=28))
    assert heat_map and histogram and large
    return {
        "curve": figures.alpha_curve(READ, READ.kinds[0]),
        "panel": figures.alpha_curve(READ, READ.kinds[0], small=True),
        "bars": figures.arm_bars(READ, READ.kinds[0]),
        "heat map": figures.vector_heat_map(heat_map),
        "large heat map": figures.vector_heat_map(large),
        "steps": figures.step_bars(histogram),
    }


@pytest.mark.parametrize("name", ["curve", "panel", "bars", "heat map", "large heat map", "steps"])
def test_plotly_accepts_the_figure(name: str) -> None:
    made = every_figure()[name]
    assert made["description"]
    coloured = json.loads(re.sub(r'"\$[a-z-]+"', '"#123456"', json.dumps(made, allow_nan=False)))
    plotly.graph_objects.Figure(data=coloured["data"], layout=coloured["layout"])  # raises for any unknown property


def test_the_curve_goes_through_every_alpha_with_the_target_at_zero() -> None:
    _, line, crosses = figures.alpha_curve(READ, READ.kinds[0])["data"]
    assert line["x"] == sorted([*ALPHAS, 0.0])
    target = READ.score("target", READ.kinds[0].name)
    assert target
    assert line["y"][line["x"].index(0.0)] == target.accuracy
    assert crosses["x"] == [1, 1, 1, 1]


def test_the_band_is_the_interval_of_each_point() -> None:
    band, line, _ = figures.alpha_curve(READ, READ.kinds[0])["data"]
    number = len(line["x"])
    lows = list(reversed(band["y"][number:]))
    assert all(low < y < high for low, y, high in zip(lows, line["y"], band["y"][:number], strict=True))


def test_every_arm_has_a_bar_from_zero_with_its_wilson_whiskers() -> None:
    bars, _ = figures.arm_bars(READ, READ.kinds[0])["data"]
    assert len(bars["x"]) == len(READ.arms)
    score = READ.score(READ.arms[0], READ.kinds[0].name)
    assert score and score.accuracy is not None
    assert bars["x"][0] + bars["error_x"]["array"][0] == pytest.approx(score.interval[1])
    assert bars["x"][0] - bars["error_x"]["arrayminus"][0] == pytest.approx(score.interval[0])
    assert sorted(bars["y"]) == bars["y"]


def test_panels_share_one_axis() -> None:
    ranges = [figures.alpha_curve(READ, kind, small=True)["layout"]["yaxis"]["range"] for kind in READ.kinds]
    assert all(entry == ranges[0] for entry in ranges)
    low, high = ranges[0]
    assert all(low <= s.interval[0] and s.interval[1] <= high for kind in READ.kinds for s in READ.sweep(kind.name))


def test_plotlys_own_markup_in_a_name_is_made_harmless() -> None:
    assert figures.plot_text('<a href="x">b</a>&amp;') == '&lt;a href="x"&gt;b&lt;/a&gt;&amp;amp;'
    assert figures.plot_text("a\n b") == "a b"
    assert len(figures.plot_text("x" * 100)) == 24


def test_a_kind_on_which_nothing_was_measured_has_empty_figures() -> None:
    read = read_measurements({"arms": [{"arm": "target", "kind": "k", "n": 0, "correct": 0}]})
    assert figures.arm_bars(read, read.kinds[0])["data"][0]["x"] == []
    assert figures.alpha_curve(read, read.kinds[0])["data"][1]["x"] == []
