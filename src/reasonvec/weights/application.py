"""`apply` and `transfer`, to one output or, with several alphas, to several in one pass over the inputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import match_donors
from reasonvec.weights.hub import locate_checkpoint, locate_vector
from reasonvec.weights.job import DEFAULT, Application, Job, Options, Progress, Setting
from reasonvec.weights.output import Out, destination
from reasonvec.weights.provenance import absolute
from reasonvec.weights.sources import DonorDeltas, StoredDeltas
from reasonvec.weights.vector import Vector

PLACE = "{alpha}"
"""What stands for alpha in the name of an output."""


def apply(
    *,
    vectors: Sequence[tuple[str | Path, float]],
    target: str | Path,
    out: str | Path,
    options: Options = DEFAULT,
    workers: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Application:
    """Write `target + sum(alpha * vector)` over the pairs (vector, alpha) to the new directory `out`.

    Computed in float32 (float64 where the output is float32) and rounded once. Entries without a delta keep their
    bits; alpha 0 returns the target. Configuration, tokenizer, chat template and generation settings are the target's.
    `workers` threads share the work (as many as there are processors, at most 4, where None); the bytes do not depend
    on their number.

    Raises IncompatibleError listing every misfit, CheckpointError and VectorError for damaged or unsafe inputs and for
    sums beyond the output's range, UsageError for patterns that match nothing, OutputError if `out` cannot be written.
    """
    place = destination(out, offline=offline)
    job = plan_apply(vectors=vectors, alphas=[1.0], target=target, options=options, follow_links=follow_links,
                     offline=offline)  # fmt: skip
    return job.run([place], dry_run=dry_run, resume=resume, force=force, progress=progress, workers=workers)[0]


def apply_sweep(
    *,
    vectors: Sequence[tuple[str | Path, float | None]],
    alphas: Sequence[float],
    target: str | Path,
    out: str | Path,
    options: Options = DEFAULT,
    workers: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> list[Application]:
    """What `apply` does, for several alphas in one pass over the inputs: `out` holds `{alpha}`, which each fills in.

    A vector whose own alpha is None takes those of `alphas` in turn; another keeps its own. Raises what `apply` raises,
    and UsageError for an `out` that would give two outputs one name.
    """
    places = outputs(out, alphas, offline=offline)
    job = plan_apply(vectors=vectors, alphas=alphas, target=target, options=options, follow_links=follow_links,
                     offline=offline)  # fmt: skip
    return job.run(places, dry_run=dry_run, resume=resume, force=force, progress=progress, workers=workers)


def outputs(out: str | Path, alphas: Sequence[float], *, offline: bool = False) -> list[Out]:
    """The place of the output of each alpha. Raises UsageError unless they are distinct."""
    found = [destination(str(out).replace(PLACE, f"{alpha:g}"), offline=offline) for alpha in alphas]
    if len(set(found)) < len(found):
        what = f"--out {out} has no {PLACE} in it" if PLACE not in str(out) else "two of the alphas are equal"
        raise UsageError(
            f"{len(alphas)} alphas ({', '.join(f'{alpha:g}' for alpha in alphas)}) need as many outputs, and {what}. "
            f"Write --out 'DIR/{PLACE}'."
        )
    return found


def plan_apply(
    *,
    vectors: Sequence[tuple[str | Path, float | None]],
    alphas: Sequence[float],
    target: str | Path,
    options: Options,
    follow_links: bool = False,
    offline: bool = False,
) -> Job:
    """Open and check everything that `apply` needs; raises what it raises, but for the output."""
    if not vectors:
        raise UsageError("apply needs at least one vector.")
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    opened = [locate_vector(location, offline=offline) for location, _ in vectors]
    settings = []
    for alpha in alphas:
        own = tuple(float(alpha if given is None else given) for _, given in vectors)
        described = [_described(vector, value) for vector, value in zip(opened, own, strict=True)]
        settings.append(Setting(own, {"vectors": described}))
    job = Job("apply", checkpoint, options, opened, settings)
    job.add([(StoredDeltas(vector), vector.donor()) for vector in opened])
    return job


def _described(vector: Vector, alpha: float) -> dict[str, Any]:
    """What a receipt says of a vector."""
    return {"location": absolute(vector.location), "revision": vector.revision, "fingerprint": vector.fingerprint,
            "alpha": alpha}  # fmt: skip


def transfer(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    out: str | Path,
    alpha: float = 1.0,
    options: Options = DEFAULT,
    workers: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> Application:
    """Write `target + alpha * (tuned - base)` to `out` in one pass, with no vector stored between.

    Gives the bytes that `extract` and then `apply` would; raises what they raise.
    """
    place = destination(out, offline=offline)
    job = plan_transfer(tuned=tuned, base=base, target=target, alphas=[alpha], options=options,
                        follow_links=follow_links, offline=offline)  # fmt: skip
    return job.run([place], dry_run=dry_run, resume=resume, force=force, progress=progress, workers=workers)[0]


def transfer_sweep(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    alphas: Sequence[float],
    out: str | Path,
    options: Options = DEFAULT,
    workers: int | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> list[Application]:
    """What `transfer` does, for several alphas in one pass over the inputs, as `apply_sweep` names the outputs."""
    places = outputs(out, alphas, offline=offline)
    job = plan_transfer(tuned=tuned, base=base, target=target, alphas=alphas, options=options,
                        follow_links=follow_links, offline=offline)  # fmt: skip
    return job.run(places, dry_run=dry_run, resume=resume, force=force, progress=progress, workers=workers)


def plan_transfer(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    alphas: Sequence[float],
    options: Options,
    follow_links: bool = False,
    offline: bool = False,
) -> Job:
    """Open and check everything that `transfer` needs; raises what it raises, but for the output."""
    donors = [locate_checkpoint(d, offline=offline, follow_links=follow_links) for d in (tuned, base)]
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    settings = [Setting((float(alpha),), {"alpha": float(alpha)}) for alpha in alphas]
    job = Job("transfer", checkpoint, options, donors, settings)
    # a pattern may match names of the donors or of the target only; `add` checks it against all of them
    match = match_donors(donors[0], donors[1], job.names)
    if not match.computed:
        raise IncompatibleError(f"{tuned} and {base} have no floating-point tensor in common; there is no difference.")
    job.add([(DonorDeltas(donors[0], donors[1], match), donors[1])])
    return job
