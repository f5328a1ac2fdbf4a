"""`apply` and `transfer`, to one output or, with several alphas, to several in one pass over the inputs."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reasonvec.errors import IncompatibleError, UsageError
from reasonvec.weights.alignment import match_donors
from reasonvec.weights.cluster import connected
from reasonvec.weights.hub import locate_checkpoint, locate_vector
from reasonvec.weights.job import DEFAULT, Application, Job, Options, Progress, Setting, Threads
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
    ray: str | None = None,
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
    on their number. With `ray`, the address of a Ray cluster, its nodes do the work. They have to see inputs and output
    at the same paths; the bytes are the same.

    Raises IncompatibleError listing every misfit, CheckpointError and VectorError for damaged or unsafe inputs and for
    sums beyond the output's range, UsageError for patterns that match nothing, OutputError if `out` cannot be written,
    ClusterError if the cluster cannot be reached or a node sees other files, MissingExtraError without the package ray.
    """
    place = destination(out, offline=offline)
    job = plan_apply(vectors=vectors, alphas=[1.0], target=target, options=options, follow_links=follow_links,
                     offline=offline)  # fmt: skip
    return _run(job, [place], ray=ray, workers=workers, dry_run=dry_run, resume=resume, force=force, progress=progress)[
        0
    ]


def apply_sweep(
    *,
    vectors: Sequence[tuple[str | Path, float | None]],
    alphas: Sequence[float],
    target: str | Path,
    out: str | Path,
    options: Options = DEFAULT,
    workers: int | None = None,
    ray: str | None = None,
    dry_run: bool = False,
    resume: bool = False,
    force: bool = False,
    follow_links: bool = False,
    offline: bool = False,
    progress: Progress = lambda nbytes: None,
) -> list[Application]:
    """What `apply` does, for several alphas in one pass over the inputs: `out` holds `{alpha}`, which each fills in.

    A vector whose own alpha is None takes those of `alphas` in turn; another keeps its own. Raises what `apply` raises,
    and UsageError for an `out` that would give two outputs one name, or several alphas that no vector takes.
    """
    if len(alphas) > 1 and vectors and all(own is not None for _, own in vectors):
        raise UsageError(f"Every vector has an alpha of its own, so none takes the {len(alphas)} alphas "
                         f"{', '.join(f'{alpha:g}' for alpha in alphas)} and all outputs would be equal. Leave out the "
                         f"@ALPHA of the vector that is to take them.")  # fmt: skip
    places = outputs(out, alphas, offline=offline)
    job = plan_apply(vectors=vectors, alphas=alphas, target=target, options=options, follow_links=follow_links,
                     offline=offline)  # fmt: skip
    return _run(
        job, places, ray=ray, workers=workers, dry_run=dry_run, resume=resume, force=force,
        progress=progress,
    )  # fmt: skip


def _run(
    job: Job, outs: Sequence[Out], *, ray: str | None, workers: int | None, dry_run: bool, resume: bool, force: bool,
    progress: Progress,
) -> list[Application]:  # fmt: skip
    """Run the job here, or on the cluster at the address `ray`.

    Raises UsageError for an output that goes from a cluster to a store: its nodes share no disk to stage it on.
    """
    if ray is None:
        executor = Threads(workers)
        return job.run(outs, executor=executor, dry_run=dry_run, resume=resume, force=force, progress=progress)
    if remote := [str(out) for out in outs if not isinstance(out, Path)]:
        raise UsageError(f"--ray writes to storage that all nodes share, and {remote[0]} is an address in a store. "
                         f"Name a directory that they share, or leave --ray out.")  # fmt: skip
    with connected(ray, workers) as nodes:
        return job.run(outs, executor=nodes, dry_run=dry_run, resume=resume, force=force, progress=progress)


def outputs(out: str | Path, alphas: Sequence[float], *, offline: bool = False) -> list[Out]:
    """The place of the output of each alpha. Raises UsageError unless they are distinct."""
    found = [destination(str(out).replace(PLACE, f"{alpha:g}"), offline=offline) for alpha in alphas]
    if len(set(found)) < len(found):
        what = (
            f"--out {out} has no {PLACE} in it"
            if PLACE not in str(out)
            else "two of the alphas are equal to six digits"
        )
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
    stored = [(vector.path, given) for vector, (_, given) in zip(opened, vectors, strict=True)]
    job.again = partial(plan_apply, vectors=stored, alphas=tuple(alphas), target=checkpoint.path, options=options,
                        follow_links=follow_links, offline=True)  # fmt: skip
    return job


def _described(vector: Vector, alpha: float) -> dict[str, Any]:
    """What a receipt says of a vector, and of a lossy one how it was made and how far it is from the exact one."""
    described: dict[str, Any] = {"location": absolute(vector.location), "revision": vector.revision,
                                 "fingerprint": vector.fingerprint, "alpha": alpha}  # fmt: skip
    if vector.lossy:
        told = ("method", "parameters", "seed", "of", "relative_error", "cosine")
        described["lossy"] = {key: vector.lossy[key] for key in told}
    return described


def transfer(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    out: str | Path,
    alpha: float = 1.0,
    options: Options = DEFAULT,
    workers: int | None = None,
    ray: str | None = None,
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
    return _run(job, [place], ray=ray, workers=workers, dry_run=dry_run, resume=resume, force=force, progress=progress)[
        0
    ]


def transfer_sweep(
    *,
    tuned: str | Path,
    base: str | Path,
    target: str | Path,
    alphas: Sequence[float],
    out: str | Path,
    options: Options = DEFAULT,
    workers: int | None = None,
    ray: str | None = None,
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
    return _run(
        job, places, ray=ray, workers=workers, dry_run=dry_run, resume=resume, force=force,
        progress=progress,
    )  # fmt: skip


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
    job.again = partial(plan_transfer, tuned=donors[0].path, base=donors[1].path, target=checkpoint.path,
                        alphas=tuple(alphas), options=options, follow_links=follow_links, offline=True)  # fmt: skip
    return job
