"""What a page does not show, said on the page: the limits that follow from how its numbers were made."""

from collections.abc import Mapping
from typing import Any

from reasonvec.report.measurements import SIGNIFICANCE, Measurements


def limits(measurements: Measurements, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs of a short claim that must not be read into the page, and the reason."""
    seed = results.get("seed")
    one_run = f" (seed {seed})" if seed is not None else ""
    found = [
        (
            "Not other runs.",
            f"All of this is one set of trained models{one_run}. Intervals and p values say how sure one can be about "
            "these models on problems like these. How much a second training run would differ, they cannot say.",
        ),
        (
            "Not other models.",
            "A vector that helps one target may do nothing, or harm, to another. Only measuring that target tells.",
        ),
        (
            "Not better reasoning as such.",
            "What is counted is whether the final answer is right. The count does not see how the model got there.",
        ),
    ]
    if len(measurements.sweep(measurements.kinds[0].name) if measurements.kinds else ()) > 2:
        found.append(
            (
                "Not a tuned α.",
                "The curve was drawn on the same problems as everything else. Picking its highest point and quoting "
                "it would flatter the method; choose α on other problems, then measure once on these.",
            )
        )
    tables = len({(difference.arm, difference.baseline) for difference in measurements.differences})
    if tables > 1:
        found.append(
            (
                "Not every mark is a discovery.",
                f"The page has {tables} tables of differences. Marks within one allow for its number of rows (Holm’s "
                f"method); yet if nothing at all had an effect, each table would still show a mark in "
                f"{SIGNIFICANCE:.0%} of such studies. Trust patterns, and small p values, before single rows.",
            )
        )
    if not measurements.arms_of("control"):
        found.append(("Not specific to this vector.", "No meaningless vectors were measured beside it."))
    return found
