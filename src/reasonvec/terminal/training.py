"""What `train` made, for people, from its training.json."""

from collections.abc import Mapping
from typing import Any

from rich.console import RenderableType

from reasonvec.terminal.parts import facts, number, percent


def donor(made: Mapping[str, Any]) -> RenderableType:
    """Where a donor is, what it was trained on, and how it does on what was held out."""
    before, after = made["validation"]["before"], made["validation"]["after"]
    rows = [
        ("donor", str(made["path"])),
        ("from", str(made["model"]["location"])),
        ("data", f"{made['data']['training']:,} problems of {made['data']['name']}, "
                 f"{made['data']['held_out']['dev']:,} held out"),
        ("steps", f"{made['steps']:,} in {made['seconds']:,.0f} s, kept in {made['master_dtype']}, "
                  f"written in {made['dtype']}"),
    ]  # fmt: skip
    if before and after:
        rows.append(("held out", f"{percent(before['accuracy'])} right before, {percent(after['accuracy'])} after"))
        if after["loss"] is not None:
            rows.append(("loss there", f"{number(before['loss'])} before, {number(after['loss'])} after"))
    if made["rounded_away_share"] is not None:
        rows.append(("rounded away", f"{percent(made['rounded_away_share'])} of the updates"))
    return facts(rows)
