"""Both donors from one base and the vector between them: `train pair`. Neither trains nor subtracts anything itself."""

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from accelerate import PartialState
from accelerate.state import AcceleratorState

from reasonvec.errors import OutputError, TrainingError, UsageError
from reasonvec.training.donor import Donor, Progress, Request, train_donor
from reasonvec.training.preparation import check_same_tokenizer
from reasonvec.weights import extract, inspect
from reasonvec.weights.analysis import Inspection
from reasonvec.weights.extraction import NEARLY_EMPTY, Extraction
from reasonvec.weights.hub import locate_checkpoint, locate_vector

Variant = Literal["chained", "parallel"]
"""GRPO from the SFT donor, or both donors from the base; docs/method.md says what that does to the vector."""
DOMINATED = math.sqrt(0.5)
"""Share of a vector's norm from which on more than half of its square is the rounding of the donors."""


@dataclass(frozen=True)
class Pair:
    """Two donors and their difference."""

    sft: Donor | None
    """None where an SFT donor was given."""
    grpo: Donor
    extraction: Extraction | None
    """None on the processes that do not write."""
    inspection: Inspection | None

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "sft": self.sft and self.sft.to_json(), "grpo": self.grpo.to_json(),
            "vector": self.extraction and self.extraction.to_json(),
        }  # fmt: skip


def train_pair(
    request: Request, *, variant: Variant = "chained", sft: str | None = None,
    warn: Callable[[str], None] = lambda text: None,
    progress: Callable[[str], Progress] = lambda title: lambda done, steps, note: None,
) -> Pair:  # fmt: skip
    """Fine-tune `request.model`, train by GRPO from that donor or, if `parallel`, from the model too, and extract
    GRPO - SFT: `out`/sft, `out`/grpo, `out`/vector. `sft` is an SFT donor at hand, which is then not trained.

    Settings of one training are named `sft.field=value` or `grpo.field=value`; `request.rewards` are GRPO's. Raises
    what `train_donor` raises, TrainingError for a vector that is almost empty or mostly rounding, and IncompatibleError
    for an SFT donor with another tokenizer than the base.
    """
    if variant not in get_args(Variant):
        raise UsageError(f"--variant is chained or parallel, not {variant!r}.")
    changes, said = _divided(request.changes), set[str]()

    def say(text: str) -> None:
        # the two trainings have the same data, and the same to say of it
        if text not in said:
            said.add(text)
            warn(text)

    if sft is not None:
        where = {"offline": request.offline}
        check_same_tokenizer(locate_checkpoint(sft, **where), locate_checkpoint(request.model, **where))
    out, main = request.out, os.environ.get("RANK", "0") == "0"  # as accelerate sets it; nothing is set up yet
    if main:
        _check_out(out, resume=request.resume, force=request.force)
    first = None
    if sft is None:
        first = train_donor(replace(request, kind="sft", out=out / "sft", rewards=(), changes=changes["sft"]),
                            warn=say, progress=progress("sft"))  # fmt: skip
        # the next trainer may compute in another precision
        AcceleratorState._reset_state()
    donor = sft or str(out / "sft")
    start = donor if variant == "chained" else request.model
    second = train_donor(replace(request, kind="grpo", out=out / "grpo", model=start, changes=changes["grpo"]),
                         warn=say, progress=progress("grpo"))  # fmt: skip
    extraction = inspection = None
    if main:
        extraction = _extract(request, second, first, donor)
        for warning in extraction.warnings:
            say(warning)
        inspection = inspect(out / "vector", offline=request.offline)
    PartialState().wait_for_everyone()
    return Pair(first, second, extraction, inspection)


def _divided(changes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The changes of either training. Raises UsageError for one that does not say whose it is."""
    vague = [change for change in changes if not change.startswith(("sft.", "grpo."))]
    if vague:
        raise UsageError(f"--set {vague[0]} does not say of which training; write sft.{vague[0]} or grpo.{vague[0]}.")
    return {kind: tuple(change.removeprefix(f"{kind}.") for change in changes if change.startswith(f"{kind}."))
            for kind in ("sft", "grpo")}  # fmt: skip


def _check_out(out: Path, *, resume: bool, force: bool) -> None:
    """What each training checks of its own directory is checked there; here, that nothing else is in the way."""
    if not out.exists():
        return
    strange = sorted(path.name for path in out.iterdir() if path.name not in ("sft", "grpo", "vector", ".vector"))
    if strange:
        raise OutputError(
            f"{out} exists already and holds {strange[0]}, which no `train pair` makes. Name another --out."
        )
    if (out / "vector").exists() and not force:
        raise OutputError(f"{out} holds a finished pair. Name another --out, or replace it with --force.")
    if not resume and not force and any(out.iterdir()):
        raise OutputError(f"{out} holds an interrupted pair: go on with --resume, or start anew with --force.")
    for name in ("vector", ".vector"):
        shutil.rmtree(out / name, ignore_errors=True)


def _extract(request: Request, grpo: Donor, sft: Donor | None, base: str) -> Extraction:
    """The vector, under its name only once it has been judged."""
    candidate, out = request.out / ".vector", request.out / "vector"
    shutil.rmtree(candidate, ignore_errors=True)
    extraction = extract(tuned=grpo.path, base=base, out=candidate, ancestor=request.model, offline=request.offline)
    try:
        _judge(extraction, grpo, sft)
    except TrainingError:
        shutil.rmtree(candidate)
        raise
    candidate.rename(out)
    return replace(extraction, vector=locate_vector(out))


def _judge(extraction: Extraction, grpo: Donor, sft: Donor | None) -> None:
    """Raise TrainingError for a vector that is not worth keeping, with what was measured."""
    made = extraction.to_json()
    share = made["changed"] / made["parameters"]
    if share < NEARLY_EMPTY:
        lost = grpo.record.get("rounded_away_share")
        rounded = f" {lost:.1%} of GRPO's updates were rounded away." if lost is not None else ""
        raise TrainingError(
            f"The vector is almost empty: {made['changed']:,} of {made['parameters']:,} entries differ ({share:.3%}, "
            f"at least {NEARLY_EMPTY:.1%} are asked for), so no vector was written.{rounded} Both donors are kept. "
            f"Train longer or with a higher grpo.learning_rate, keep master weights in float32, and write the donors "
            f"with --dtype float32."
        )
    donors = [grpo, *([sft] if sft is not None and grpo.record["parent"] is None else [])]
    squares = sum(donor.record["rounding_norm"] ** 2 for donor in donors)
    # of donors of two dtypes, which only an SFT donor that was given can bring about
    squares += sum(float(info["rounding"]) for info in extraction.vector.document["tensors"].values())
    noise = math.sqrt(squares)
    if noise > DOMINATED * made["norm"]:
        raise TrainingError(
            f"The vector is mostly rounding: putting the donors on one grid moved them by {noise:.3g}, and the "
            f"vector's norm is {made['norm']:.3g}, so no vector was written. Both donors are kept. Write both with "
            f"--dtype float32, or train longer."
        )
