"""Assemble and write the page. The words around the numbers are in template.html, the numbers in the other modules."""

import base64
import hashlib
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from reasonvec.errors import OutputError
from reasonvec.report import anatomy, figures, notation, tables
from reasonvec.report.limits import limits
from reasonvec.report.measurements import Measurements, read_measurements
from reasonvec.report.verdict import curve_summary, headline_kind, verdict


def write_report(
    *,
    out: Path,
    results: Mapping[str, Any],
    story: Mapping[str, Any],
    vector: Mapping[str, Any] | None = None,
    provenance: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write `out`, one HTML file that needs no network, whole or not at all; an existing `out` is replaced.

    `results` is the document results.json, `story` what was done in a newcomer's words (title, lead, steps, caveat),
    `vector` the document of ``reasonvec inspect --json``, `provenance` the inputs (role, name, fingerprint, revision,
    detail). All strings in them are untrusted. Raises OutputError if `out` cannot be written.
    """
    page = render_report(results=results, story=story, vector=vector, provenance=provenance)
    _replace(out, page.encode())


def render_report(
    *,
    results: Mapping[str, Any],
    story: Mapping[str, Any],
    vector: Mapping[str, Any] | None,
    provenance: Sequence[Mapping[str, Any]],
) -> str:
    """The page as text; see `write_report`."""
    measurements = read_measurements(results)
    environment = Environment(
        loader=PackageLoader("reasonvec.report", "."),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelt name in the template must not become a silent gap in the report
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # browsers refuse NaN, so better to fail here
    environment.filters |= {
        name: getattr(notation, name)
        for name in ("arm_label", "count", "duration", "p_number", "percent", "points", "share")
    }
    plotly, script, style = get_plotlyjs(), _source(environment, "page.js"), _source(environment, "page.css")
    return environment.get_template("template.html").render(
        _measured_context(measurements, results),
        story=_story_context(story),
        vector=_vector_context(vector),
        provenance=[_filled(entry, role="", name="", fingerprint="", revision="", detail="") for entry in provenance],
        figures=_figures(measurements, vector),
        content_security_policy=_content_security_policy(plotly, script),
        plotly=_inlined(plotly),
        script=_inlined(script),
        style=_inlined(style),
    )


def _measured_context(measurements: Measurements, results: Mapping[str, Any]) -> dict[str, Any]:
    glance = tables.glance_rows(measurements)
    kind = headline_kind(measurements)
    return {
        "measurements": measurements,
        "verdict": verdict(measurements),
        "headline_kind": kind,
        "curve_summary": curve_summary(measurements, kind) if kind else "",
        "glance": glance,
        "glance_reach": tables.reach_of(row.difference for row in glance),
        "difference_tables": tables.difference_tables(measurements),
        "difference_reach": tables.reach_of(measurements.differences),
        "examples": tables.examples(measurements, results.get("examples") or ()),
        "limits": limits(measurements, results),
        "has_lab_donors": set(measurements.arms) >= {"ancestor", "sft", "grpo", "target"},
        "command": results.get("command") or _demo_command(results),
        "stages": results.get("stages") or {},
        "versions": results.get("versions") or {},
        "seconds": results.get("seconds"),
        "seed": results.get("seed"),
    }


def _story_context(story: Mapping[str, Any]) -> dict[str, Any]:
    filled = _filled(story, title="", lead="", steps=(), caveat="")
    return filled | {"steps": [_filled(step, title="", text="", result="") for step in filled["steps"]]}


def _vector_context(vector: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not vector:
        return None
    ranks, energies = anatomy.energies(vector)
    numbers = {"parameters": None, "relative_norm": None, "unchanged_share": None}
    return {
        "summary": _filled(vector, tensors_count=None, **numbers),
        "modules": [_filled(entry, kind="other", **numbers) for entry in anatomy.module_rows(vector)],
        "layers": [_filled(entry, layer=None, **numbers) for entry in anatomy.layer_rows(vector)],
        "ranks": ranks,
        "energies": energies,
    }


def _filled(document: Mapping[str, Any], **absent: Any) -> dict[str, Any]:
    """`document` with a value for every optional key, whether it lacks the key or says null."""
    return {**document, **{key: value for key, value in absent.items() if document.get(key) is None}}


def _figures(measurements: Measurements, vector: Mapping[str, Any] | None) -> dict[str, figures.Figure]:
    """Every plot of the page by the name that the template's ``data-figure`` gives it."""
    found: dict[str, figures.Figure] = {}
    for index, kind in enumerate(measurements.kinds):
        found[f"bars-{index}"] = figures.arm_bars(measurements, kind)
        if len(measurements.sweep(kind.name)) > 1:
            found[f"curve-{index}"] = figures.alpha_curve(measurements, kind)
            found[f"panel-{index}"] = figures.alpha_curve(measurements, kind, small=True)
    heat_map = anatomy.heat_map(vector) if vector else None
    if heat_map:
        found["heat-map"] = figures.vector_heat_map(heat_map)
    histogram = anatomy.step_histogram(vector) if vector else None
    if histogram:
        found["steps"] = figures.step_bars(histogram)
    return found


def _demo_command(results: Mapping[str, Any]) -> str | None:
    """Only the demo leaves its command out of its results, since its seed says everything."""
    return f"reasonvec demo --seed {results['seed']}" if "seed" in results else None


def _source(environment: Environment, name: str) -> str:
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]


def _inlined(source: str) -> Markup:
    """Our own code and plotly's, to stand between tags as it is."""
    if "</script" in source.lower() or "<!--" in source or "</style" in source.lower():
        raise ValueError("A script or style of the page would end its own tag early; the page was not written.")
    return Markup(source)  # noqa: S704 no data in it, and checked above


def _content_security_policy(*scripts: str) -> str:
    """Forbid the network, and any script but the given ones even if an escape were missed.

    Styles stay open because plotly sets them on its elements; a style can fetch nothing where all sources are closed.
    """
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    allowed = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        f"base-uri 'none'; form-action 'none'"
    )


def _replace(out: Path, content: bytes) -> None:
    """Write beside `out`, then rename, so that a reader sees the old page or the new one."""
    try:
        descriptor, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.", suffix=".partial")
    except OSError as error:
        raise OutputError(f"{out} could not be written: {error.strerror}. Choose another place.") from error
    partial = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(0o644)  # mkstemp makes it private; a report is for others to read
        partial.replace(out)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OutputError(f"{out} could not be written: {error.strerror}. Nothing was left behind.") from error
        raise
