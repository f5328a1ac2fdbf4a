"""The plots, as plotly figure dictionaries made by pure functions. How they are drawn and coloured is page.js's part.

A colour is written ``$name`` and stands for the page's CSS variable ``--name``, so that plots follow light and dark.
Every string from the data is escaped here, because plotly reads a subset of HTML in its texts.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

from reasonvec.report.anatomy import HeatMap, StepHistogram
from reasonvec.report.measurements import Group, Kind, Measurements, Score
from reasonvec.report.notation import arm_label, percent, signed_alpha, small_percent

Figure = dict[str, Any]
"""``{"data": [...], "layout": {...}, "description": what the picture shows, for those who cannot see it}``."""

_CLEAR = "rgba(0,0,0,0)"
_LABEL_LIMIT = 24
_TENS = [0, 20, 40, 60, 80, 100]
_ROW = 25  # pixels a bar takes: two lines of 12 px text never touch
_GROUP_TITLES: dict[Group, str] = {
    "donor": "Where the vector comes from",
    "target": "The target",
    "sweep": "Target with the vector, by α",
    "control": "Target with a meaningless vector",
    "other": "Others",
}
_GROUP_COLOURS: dict[Group, str] = {
    "donor": "$bar-donor",
    "target": "$bar-target",
    "sweep": "$bar-sweep",
    "control": "$bar-control",
    "other": "$bar-control",
}


def alpha_curve(measurements: Measurements, kind: Kind, *, small: bool = False) -> Figure:
    """Accuracy on `kind` over alpha with 95 % intervals; the controls as crosses where alpha would be 1."""
    sweep = [score for score in measurements.sweep(kind.name) if score.accuracy is not None]
    alphas = [score.alpha for score in sweep]
    lows, highs = [s.interval[0] for s in sweep], [s.interval[1] for s in sweep]
    data: list[Figure] = [
        {
            "type": "scatter", "x": [*alphas, *reversed(alphas)], "y": [*highs, *reversed(lows)], "fill": "toself",
            "fillcolor": "$enhanced-band", "line": {"width": 0}, "mode": "lines", "hoverinfo": "skip",
            "name": "95 % interval", "showlegend": not small,
        },
        {
            "type": "scatter", "x": alphas, "y": [s.accuracy for s in sweep], "mode": "lines+markers",
            "line": {"color": "$enhanced", "width": 2 if small else 2.5},
            "marker": {"color": "$enhanced", "size": 4 if small else 8},
            "name": "target + α·v", "showlegend": not small,
            "customdata": [f"α = {signed_alpha(s.alpha or 0)}<br>{_score_text(s)}" for s in sweep],
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        _control_points(measurements, kind, small=small),
    ]  # fmt: skip
    return {
        "data": data,
        "layout": _curve_layout(measurements, kind, small=small),
        "description": _curve_description(kind, sweep),
    }


def _control_points(measurements: Measurements, kind: Kind, *, small: bool) -> Figure:
    scores = _measured(measurements, measurements.arms_of("control"), kind)
    return {
        "type": "scatter", "x": [1] * len(scores), "y": [score.accuracy for score in scores], "mode": "markers",
        "marker": {"color": "$control-mark", "size": 5 if small else 9, "symbol": "x-thin",
                   "line": {"color": "$control-mark", "width": 1.5 if small else 2}},
        "name": "meaningless vectors of the same size", "showlegend": not small and bool(scores),
        "customdata": [f"{plot_text(arm_label(s.arm))}<br>{_score_text(s)}" for s in scores],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


def _curve_layout(measurements: Measurements, kind: Kind, *, small: bool) -> Figure:
    layout = _layout(height=170 if small else 400, left=34 if small else 48, bottom=26 if small else 52)
    low, high = accuracy_range(measurements)
    layout["yaxis"] |= {"range": [low, high], "ticksuffix": "" if small else " %", "nticks": 4 if small else 8}
    layout["xaxis"] |= {"nticks": 5 if small else 9, "zeroline": False, "showgrid": False}
    layout["shapes"] = [_vertical(0), _vertical(1)]
    target = measurements.score("target", kind.name)
    if target and target.accuracy is not None:
        line = {"color": "$muted", "width": 1, "dash": "dash"}
        layout["shapes"].append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "yref": "y", "line": line,
                                 "y0": target.accuracy, "y1": target.accuracy, "layer": "below"})  # fmt: skip
    if not small:
        layout["xaxis"]["title"] = {"text": "α: how much of the vector is added", "standoff": 8}
        layout["annotations"] = [_above(0, "target alone"), _above(1, "whole vector")]
        layout["legend"] = {"orientation": "h", "x": 0, "y": -0.22, "yanchor": "top"}
        layout["margin"] |= {"t": 28, "b": 110}
    return layout


def accuracy_range(measurements: Measurements) -> tuple[float, float]:
    """One axis for the curves of all kinds, so that panels can be compared: every interval, rounded out to tens."""
    ends = [end for kind in measurements.kinds for score in measurements.sweep(kind.name) for end in score.interval]
    if not ends:
        return 0.0, 100.0
    return max(0.0, min(ends) // 10 * 10), min(100.0, -(-max(ends) // 10) * 10)


def _curve_description(kind: Kind, sweep: Sequence[Score]) -> str:
    steps = ", ".join(f"{percent(score.accuracy)} at {signed_alpha(score.alpha or 0)}" for score in sweep)
    return f"Percent solved over alpha for {kind.title}: {steps or 'not measured'}."


def arm_bars(measurements: Measurements, kind: Kind) -> Figure:
    """Every arm's accuracy on `kind` as a bar from zero, with Wilson's 95 % interval, in groups."""
    rows, headings = _bar_rows(measurements, kind)
    scores = [score for _, score in rows]
    layout = _layout(height=round(_ROW * (rows[-1][0] + 1.2)) + 64 if rows else 120, left=8, bottom=44)
    layout["xaxis"] |= {
        "range": [0, 118],
        "tickvals": _TENS,
        "ticktext": [f"{tick} %" for tick in _TENS],
        "tickangle": 0,
    }
    layout["yaxis"] |= {
        "tickvals": [position for position, _ in rows], "ticktext": [plot_text(arm_label(s.arm)) for s in scores],
        "range": [(rows[-1][0] if rows else 0) + 0.7, -1.1], "automargin": True, "showgrid": False,
    }  # fmt: skip
    layout["bargap"] = 0.3
    layout["annotations"] = [
        {"text": f"<b>{title}</b>", "xref": "paper", "x": 0, "xanchor": "left", "yref": "y", "y": position,
         "showarrow": False, "font": {"size": 12, "color": "$muted"}}
        for position, title in headings
    ]  # fmt: skip
    target = measurements.score("target", kind.name)
    if target and target.accuracy is not None:
        layout["shapes"] = [_vertical(target.accuracy, colour="$whisker", dash="dash", layer="above")]
    return {
        "data": [_bars(rows, measurements.enhanced), _bar_numbers(rows)],
        "layout": layout,
        "description": _bars_description(kind, scores),
    }


def _bar_rows(measurements: Measurements, kind: Kind) -> tuple[list[tuple[float, Score]], list[tuple[float, str]]]:
    """Where each bar and each group's title stands, counted in bars from the top."""
    rows, headings, position = [], [], 0.0
    for group, title in _GROUP_TITLES.items():
        scores = _measured(measurements, measurements.arms_of(group), kind)
        if not scores:
            continue
        headings.append((position - 0.85 if position == 0 else position + 0.1, title))
        position += 0.0 if position == 0 else 0.95
        for score in scores:
            rows.append((position, score))
            position += 1
        position += 0.15
    return rows, headings


def _bars(rows: Sequence[tuple[float, Score]], enhanced: str | None) -> Figure:
    scores = [score for _, score in rows]
    return {
        "type": "bar", "orientation": "h", "y": [position for position, _ in rows],
        "x": [score.accuracy for score in scores], "width": 0.72, "showlegend": False,
        "marker": {
            "color": ["$bar-enhanced" if s.arm == enhanced else _GROUP_COLOURS[s.group] for s in scores],
            # hatching tells controls from the sweep where colours cannot, in print and to colour-blind readers
            "pattern": {"shape": ["/" if score.group == "control" else "" for score in scores],
                        "fgcolor": "$surface", "size": 5, "solidity": 0.35},
        },
        "error_x": {
            "type": "data", "symmetric": False, "color": "$whisker", "thickness": 1.5, "width": 4,
            "array": [s.interval[1] - (s.accuracy or 0) for s in scores],
            "arrayminus": [(s.accuracy or 0) - s.interval[0] for s in scores],
        },
        "customdata": [f"{plot_text(arm_label(s.arm))}<br>{_score_text(s)}" for s in scores],
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


def _bar_numbers(rows: Sequence[tuple[float, Score]]) -> Figure:
    return {
        "type": "scatter", "mode": "text", "x": [117] * len(rows), "y": [position for position, _ in rows],
        "text": [percent(score.accuracy) for _, score in rows], "textposition": "middle left", "hoverinfo": "skip",
        "textfont": {"color": "$ink", "size": 12}, "showlegend": False, "cliponaxis": False,
    }  # fmt: skip


def _bars_description(kind: Kind, scores: Sequence[Score]) -> str:
    listed = ", ".join(f"{arm_label(score.arm)} {percent(score.accuracy)}" for score in scores)
    return f"Percent solved by every arm for {kind.title}: {listed or 'not measured'}."


def vector_heat_map(heat_map: HeatMap) -> Figure:
    """Norm of the vector relative to the weights it changes, layers down, module kinds across."""
    rows = len(heat_map.layers)
    largest = max((value, layer, kind) for layer, kind, value in heat_map.cells())
    numbered = rows <= 12
    layout = _layout(height=max(180, (34 if numbered else 16) * rows + 90), left=8, bottom=44)
    layout["xaxis"] |= {
        "side": "top",
        "showgrid": False,
        "autotickangles": [0, 45, 90],
        "automargin": True,
        "type": "category",
    }
    layout["yaxis"] |= {"autorange": "reversed", "automargin": True, "showgrid": False, "type": "category"}
    layout["margin"] |= {"t": 30, "b": 12}
    shown = [[None if value is None else 100 * value for value in row] for row in heat_map.relative_norms]
    texts = [["" if value is None else small_percent(value) for value in row] for row in shown]
    trace = {
        "type": "heatmap", "z": shown, "x": [plot_text(kind) for kind in heat_map.kinds],
        "y": [plot_text(layer) for layer in heat_map.layers], "xgap": 2, "ygap": 2, "hoverongaps": False,
        "zmin": 0, "zmax": 100 * largest[0] or 1,
        "colorscale": [[0, "$heat-low"], [0.5, "$heat-mid"], [1, "$heat-high"]],
        "customdata": texts, "hovertemplate": "%{y}, %{x}<br>%{customdata} of the weights' norm<extra></extra>",
        "showscale": not numbered,
        "colorbar": {"thickness": 10, "outlinewidth": 0, "ticksuffix": " %"},
    }  # fmt: skip
    if numbered:
        trace |= {"text": [[text.replace("\u00a0%", "") for text in row] for row in texts], "texttemplate": "%{text}"}
    description = (
        f"Relative norm of the vector over {rows} rows and {len(heat_map.kinds)} module kinds; the largest, "
        f"{small_percent(100 * largest[0])}, is {largest[2]} in {largest[1]}."
    )
    return {"data": [trace], "layout": layout, "description": description}


def step_bars(histogram: StepHistogram) -> Figure:
    """Share of all weights by how many representable steps they moved."""
    layout = _layout(height=280, left=8, bottom=56)
    layout["xaxis"] |= {"type": "category", "showgrid": False, "autotickangles": [0, 90], "automargin": True,
                        "title": {"text": "steps between the two donors", "standoff": 8}}  # fmt: skip
    layout["yaxis"] |= {"ticksuffix": " %", "automargin": True, "rangemode": "tozero"}
    texts = [small_percent(share) for share in histogram.shares]
    trace = {
        "type": "bar", "x": [plot_text(label) for label in histogram.bins], "y": histogram.shares,
        "text": [text.replace("\u00a0%", "") for text in texts],  # the axis has the sign, a phone not the room
        "textposition": "outside", "cliponaxis": False, "textfont": {"size": 11, "color": "$ink"},
        "marker": {"color": ["$bar-control" if label == "0" else "$bar-enhanced" for label in histogram.bins]},
        "hovertemplate": "%{x} steps: %{text} %<extra></extra>",
    }  # fmt: skip
    listed = ", ".join(f"{label}: {text}" for label, text in zip(histogram.bins, texts, strict=True))
    return {"data": [trace], "layout": layout, "description": f"Share of weights by steps moved: {listed}."}


def plot_text(text: str) -> str:
    """`text` as plotly shows it to the letter: shortened to fit an axis, its markup made harmless."""
    flat = " ".join(text.split())
    return escape(flat if len(flat) <= _LABEL_LIMIT else f"{flat[: _LABEL_LIMIT - 1]}…", quote=False)


def _measured(measurements: Measurements, arms: Sequence[str], kind: Kind) -> list[Score]:
    scores = (measurements.score(arm, kind.name) for arm in arms)
    return [score for score in scores if score and score.accuracy is not None]


def _score_text(score: Score) -> str:
    low, high = score.interval
    return f"<b>{percent(score.accuracy)}</b> ({low:.1f} to {high:.1f})<br>{score.correct} of {score.n} solved"


def _vertical(x: float, *, colour: str = "$rule-strong", dash: str = "solid", layer: str = "below") -> Figure:
    line = {"color": colour, "width": 1, "dash": dash}
    return {
        "type": "line", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1, "line": line, "layer": layer,
    }  # fmt: skip


def _above(x: float, text: str) -> Figure:
    return {
        "x": x, "y": 1, "yref": "paper", "yanchor": "bottom", "text": text, "showarrow": False,
        "font": {"size": 12, "color": "$muted"},
    }  # fmt: skip


def _layout(*, height: int, left: int, bottom: int) -> Figure:
    # fixed ranges: a finger that scrolls the page must not zoom a plot
    axis = {"fixedrange": True, "gridcolor": "$rule", "linecolor": "$rule-strong", "zeroline": False,
            "tickfont": {"color": "$muted"}, "color": "$muted"}  # fmt: skip
    return {
        "height": height, "margin": {"l": left, "r": 8, "t": 10, "b": bottom},
        "paper_bgcolor": _CLEAR, "plot_bgcolor": _CLEAR, "font": {"size": 12, "color": "$ink"},
        "hovermode": "closest", "dragmode": False,
        "hoverlabel": {"bgcolor": "$surface", "bordercolor": "$rule-strong", "font": {"color": "$ink"}},
        "xaxis": dict(axis), "yaxis": dict(axis),
    }  # fmt: skip
