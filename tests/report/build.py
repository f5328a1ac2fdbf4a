"""Small results made by hand, so that a test's oracle can be read off its own lines."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from reasonvec.report.measurements import Measurements, read_measurements


def difference(
    arm: str, points: float, half_width: float = 4.0, *, kind: str = "start", p: float | None = None, **more: Any
) -> Any:
    """A difference against the target; p is small exactly where the interval leaves out zero, unless given."""
    clear = abs(points) > half_width
    return {
        "arm": arm, "baseline": "target", "kind": kind, "n": 500, "points": points, "low": points - half_width,
        "high": points + half_width, "p": (1e-6 if clear else 0.4) if p is None else p, **more,
    }  # fmt: skip


def results(
    *differences: Any, donors: tuple[int, int] = (270, 385), form: Mapping[str, Any] = MappingProxyType({}), **more: Any
) -> dict[str, Any]:
    """Results with the arms that the differences name, on kinds `start` (the target's own) and any others named; `form`
    holds more of what is said of an arm."""
    kinds = dict.fromkeys(["start", *(d["kind"] for d in differences)])
    named = dict.fromkeys(["target", *(d["arm"] for d in differences)])
    arms = [
        {"arm": arm, "kind": kind, "n": 500, "correct": 250, **form.get(arm, {})} for kind in kinds for arm in named
    ]
    sft, grpo = donors
    arms += [{"arm": "sft", "kind": "sym", "n": 500, "correct": sft}]
    arms += [{"arm": "grpo", "kind": "sym", "n": 500, "correct": grpo}]
    described = [
        {"name": kind, "title": kind.title(), "seen_by_donors": kind == "sym", "seen_by_target": kind == "start"}
        for kind in dict.fromkeys((*kinds, "sym"))
    ]
    return {"arms": arms, "differences": list(differences), "kinds": described, **more}


def measurements(*differences: Any, **arguments: Any) -> Measurements:
    """The same, read."""
    return read_measurements(results(*differences, **arguments))
