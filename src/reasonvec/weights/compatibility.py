"""`check`: does this vector fit this target? Names, shapes and dtypes, configuration, tokenizer, and from a sample of
the weights the lineage; all of it reported at once, none of it changing anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.weights.alignment import Misfit, NameFilter, listing, match_target
from reasonvec.weights.checkpoint import Checkpoint
from reasonvec.weights.configuration import configuration_findings
from reasonvec.weights.dtypes import FLOATS
from reasonvec.weights.findings import Finding, enumerated
from reasonvec.weights.hub import locate_checkpoint, locate_vector
from reasonvec.weights.lineage import Lineage, lineage_findings, measure_lineage
from reasonvec.weights.tokenizer import embedding_rows, is_token_table, tokenizer_findings
from reasonvec.weights.vector import Vector

_MISFITS = {
    "missing": (
        "The target lacks tensors of the vector",
        "Part of a vector makes a model that nobody trained. Use a target of the donors' architecture, or leave these "
        "tensors out by name with --skip.",
    ),
    "extra": (
        "The target has tensors that the vector lacks",
        "They would stay as they are while the rest moves. Use a target of the donors' architecture, or make that a "
        "recorded choice with --skip.",
    ),
    "shape": (
        "Tensors have another shape",
        "A delta is added entry by entry. Use a target of the donors' size; where only the embedding is longer or "
        "shorter, leave it out with --skip and take the rest.",
    ),
    "dtype": (
        "Tensors have a dtype that cannot be added to",
        "Sums are taken of float32, bfloat16 and float16. Use an unquantised copy of the target, or leave these "
        "tensors out with --skip.",
    ),
    "carried": (
        "Tensors that are not computed with differ",
        "Integers and 8-bit floats are taken over from the target as they are, so they must mean the same. Leave them "
        "out with --skip if you know that they do.",
    ),
    "tied": (
        "Tensors are tied on one side only",
        "One tensor for input and output embedding takes one delta, two take two. Leave both out with --skip.",
    ),
}


@dataclass(frozen=True)
class CheckReport:
    """All that was found about a vector and a target."""

    vector: str
    target: str
    findings: tuple[Finding, ...]
    """The worst first."""
    lineage: Lineage | None
    """None where the vector keeps no sample of its base donor, or no matrix fits."""

    @property
    def fits(self) -> bool:
        """Whether `apply` would take the two: no finding is blocking."""
        return not any(finding.level == "blocking" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """As `check --json` prints it."""
        return {
            "vector": self.vector, "target": self.target, "fits": self.fits,
            "findings": [finding.to_json() for finding in self.findings],
            "lineage": self.lineage.to_json() if self.lineage else None,
        }  # fmt: skip


def check(
    *,
    vector: str | Path,
    target: str | Path,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    offline: bool = False,
    follow_links: bool = False,
) -> CheckReport:
    """Say whether `vector` fits `target`, and what to know before it is applied. Writes nothing.

    `fits` is false exactly where `apply` with the same `only` and `skip` raises IncompatibleError. Raises VectorError
    and CheckpointError for inputs that are damaged or unsafe, UsageError for a pattern that matches nothing.
    """
    opened = locate_vector(vector, offline=offline)
    checkpoint = locate_checkpoint(target, offline=offline, follow_links=follow_links)
    names = NameFilter(only, skip)
    names.check({*opened.deltas, *opened.carried, *opened.left_out, *checkpoint.tensors})
    pairs, misfits = match_target(opened, checkpoint, names)
    lineage = measure_lineage(opened, checkpoint)
    findings = [
        *_tensor_findings(misfits),
        *donor_findings(opened.donor(), checkpoint, includes_embedding(checkpoint, pairs)),
        *_dtype_findings(opened, checkpoint, pairs),
        *_vector_findings(opened, pairs),
        *lineage_findings(opened, lineage),
    ]
    levels = ("blocking", "warning", "note")
    ordered = sorted(findings, key=lambda finding: levels.index(finding.level))
    return CheckReport(str(vector), str(target), tuple(ordered), lineage)


def donor_findings(donor: Checkpoint, target: Checkpoint, embeddings_included: bool) -> list[Finding]:
    """Compare the small files of a donor with the target's: configuration and tokenizer. Reads no weights.

    `embeddings_included`: what is added changes rows of the target's embedding, see `includes_embedding`.
    """
    return [*configuration_findings(donor, target), *tokenizer_findings(donor, target, embeddings_included)]


def includes_embedding(target: Checkpoint, names: Iterable[str]) -> bool:
    """Whether a matrix with a row for every token is among the tensors `names` of the target: by its number of rows, or
    by its name."""
    rows = embedding_rows(target)
    shapes = {name: target.tensors[name].shape for name in names}
    return any(len(shape) == 2 and (shape[0] == rows or is_token_table(name)) for name, shape in shapes.items())


def _tensor_findings(misfits: Sequence[Misfit]) -> list[Finding]:
    findings = []
    for problem, (title, advice) in _MISFITS.items():
        if alike := [misfit for misfit in misfits if misfit.problem == problem]:
            findings.append(Finding("blocking", title, f"{len(alike)} of them:\n{listing(alike)}", advice))
    # whatever kind of misfit is new to this table blocks as well
    if unknown := [misfit for misfit in misfits if misfit.problem not in _MISFITS]:
        findings.append(Finding("blocking", "Tensors do not fit", listing(unknown), "Leave them out with --skip."))
    return findings


def _dtype_findings(vector: Vector, target: Checkpoint, pairs: Mapping[str, str]) -> list[Finding]:
    """What becomes of deltas from one grid on another."""
    counts: dict[tuple[str, str], int] = {}
    for name, delta in pairs.items():
        dtypes = vector.deltas[delta].checkpoint_dtype, target.tensors[name].dtype
        if dtypes[0] != dtypes[1] and all(dtype in FLOATS for dtype in dtypes):
            counts[dtypes] = counts.get(dtypes, 0) + 1
    findings = []
    for (ours, theirs), count in sorted(counts.items()):
        first, second = FLOATS[ours], FLOATS[theirs]
        evidence = f"{count} tensors are {first.name} in the donors and {second.name} in the target."
        if second.significand >= first.significand:
            findings.append(
                Finding("note", f"The target is {second.name}", evidence, "Its grid is finer, so little is lost.")
            )
            continue
        findings.append(
            Finding(
                "warning",
                f"The target is {second.name}, the donors are {first.name}",
                f"{evidence} One step of {second.name} is 1/{2**second.significand} to "
                f"1/{2 ** (second.significand - 1)} of a weight; this vector is {_relative_norm(vector):.2%} of the "
                f"weights' norm.",
                "A change of less than half a step is rounded away, and most of a small delta may be. `apply` reports "
                "how much came through; --rounding stochastic keeps it on average, --dtype float32 entirely.",
            )
        )
    return findings


def _relative_norm(vector: Vector) -> float:
    weights = sum(delta.base_norm**2 for delta in vector.deltas.values())
    return float((sum(delta.norm**2 for delta in vector.deltas.values()) / weights) ** 0.5) if weights else 0.0


def _vector_findings(vector: Vector, pairs: Mapping[str, str]) -> list[Finding]:
    """What is odd about the vector itself, whatever the target."""
    findings = []
    if not any(vector.deltas[delta].changed for delta in pairs.values()):
        reason = "Every entry of it is zero." if pairs else "No tensor of the target gets a delta."
        findings.append(
            Finding(
                "warning",
                "Nothing would change",
                reason,
                "Look at the vector with `reasonvec inspect`, and at --only and --skip.",
            )
        )
    if vector.lossy_notice:
        findings.append(
            Finding(
                "warning",
                "The vector is lossy",
                vector.lossy_notice,
                "Use the exact one unless its size forbids that, and do not take a result for that of the exact one.",
            )
        )
    relation = vector.document.get("relation")
    if isinstance(relation, dict) and relation.get("case") in ("parallel", "unclear"):
        evidence = f"The donors' relation was found {relation['case']} when the vector was extracted."
        findings.append(
            Finding("warning", "The donors' relation", evidence, str(relation.get("explanation", "See inspect.")))
        )
    if left_out := sorted(vector.left_out):
        findings.append(
            Finding(
                "note",
                "The vector was extracted in part",
                f"{len(left_out)} tensors were left out: {enumerated(left_out, 3)}.",
                "They stay as they are in the target.",
            )
        )
    return findings
