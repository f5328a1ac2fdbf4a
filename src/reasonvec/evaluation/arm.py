"""The arm of a run: which weights answered. Identities, so that two arms can be told apart and one found again."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reasonvec.errors import CheckpointError, ReasonvecError, UsageError, VectorError
from reasonvec.weights.application import plan_apply
from reasonvec.weights.checkpoint import Checkpoint, tensor_reader
from reasonvec.weights.files import sha256_of
from reasonvec.weights.hub import locate_checkpoint, locate_vector, recorded_location
from reasonvec.weights.job import Options
from reasonvec.weights.provenance import absolute, fingerprint
from reasonvec.weights.receipt import RECEIPT, read_receipt
from reasonvec.weights.tensors import digest_of
from reasonvec.weights.vector import Vector


@dataclass(frozen=True)
class Arm:
    """A checkpoint, and the vector that is added to it once it is loaded."""

    checkpoint: Checkpoint
    vector: Vector | None
    alpha: float | None
    """None without a vector."""
    warnings: tuple[str, ...]
    """What `apply` would warn of."""

    def to_json(self) -> dict[str, Any]:
        """Everything that the answers may depend on, by content. Reads all weights."""
        checkpoint = self.checkpoint
        with tensor_reader(drop_behind=False) as reader:
            digests = [(entry, digest_of(entry, reader)) for entry in checkpoint.tensors.values()]
        return {
            "checkpoint": absolute(checkpoint.location),
            "revision": checkpoint.revision,
            "fingerprint": fingerprint(digests),
            "small_files": {name: sha256_of(checkpoint.path / name) for name in checkpoint.small_files()},
            **self._added(),
        }

    def _added(self) -> dict[str, Any]:
        """The vector, whether it was attached here or written into the checkpoint before, and what it was added to."""
        if self.vector is not None:
            control = self.vector.document.get("control") or {}
            return {
                "target": absolute(self.checkpoint.location),
                "vector": absolute(self.vector.location),
                "vector_fingerprint": self.vector.fingerprint,
                "alpha": self.alpha,
                "control": control.get("kind"),
                "attached": True,
            }
        receipt = receipt_of(self.checkpoint.path)
        return {
            "target": receipt["target"]["location"] if receipt else absolute(self.checkpoint.location),
            **_written(receipt or {}),
            "attached": False,
        }


def open_arm(checkpoint: str | Path, *, vector: str | Path | None, alpha: float | None, offline: bool = False) -> Arm:
    """Open a checkpoint, and the vector to add to it, by path or Hub id.

    Raises UsageError for an alpha without a vector, CheckpointError for a checkpoint in a store, which cannot be loaded
    from there, and what `apply` raises of a vector that does not fit.
    """
    if vector is None and alpha is not None:
        raise UsageError(f"--alpha {alpha} has nothing to scale: name a vector with --vector, or leave it out.")
    if vector is None:
        return Arm(_local(locate_checkpoint(checkpoint, offline=offline)), None, None, ())
    alpha = 1.0 if alpha is None else alpha
    # what `apply` would refuse, from headers alone
    plan = plan_apply(vectors=[(vector, alpha)], alphas=[alpha], target=checkpoint, options=Options(), offline=offline)
    opened = next(each for each in plan.inputs if isinstance(each, Vector))
    return Arm(_local(plan.target), opened, alpha, tuple(plan.warnings(plan.settings[0], None)))


def receipt_of(checkpoint: Path) -> dict[str, Any] | None:
    """The receipt of an enhanced checkpoint. None for any other, and where it cannot be read: then it claims nothing,
    and the weights are known by their fingerprint."""
    if not (checkpoint / RECEIPT).is_file():
        return None
    try:
        return read_receipt(checkpoint)
    except VectorError:
        return None


def _local(checkpoint: Checkpoint) -> Checkpoint:
    if checkpoint.mirror is not None:
        raise CheckpointError(
            f"{checkpoint.location} is in a store, and a model is loaded from a disk. Copy it to a directory, and "
            f"measure that; a vector may stay in its store."
        )
    if not checkpoint.config:
        raise CheckpointError(
            f"{checkpoint.location} has no config.json, or an empty one, so there is no telling which architecture its "
            f"weights are of. Copy it from where the model came from."
        )
    return checkpoint


def _written(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """What a receipt says was added. Several vectors are one sum with a name of its own; their alpha is one if it is
    the same for all."""
    if receipt.get("operation") == "transfer":
        difference = " - ".join(recorded_location(receipt[role]) for role in ("tuned", "base"))
        return {"vector": difference, "vector_fingerprint": None, "alpha": float(receipt["alpha"]), "control": None}
    vectors = receipt.get("vectors", [])
    alphas = {float(each["alpha"]) for each in vectors}
    controls = {_control_of(each) for each in vectors}
    return {
        "vector": " + ".join(each["location"] for each in vectors) or None,
        "vector_fingerprint": " + ".join(each["fingerprint"] for each in vectors) or None,
        "alpha": alphas.pop() if len(alphas) == 1 else None,
        "control": controls.pop() if len(controls) == 1 else None,
    }


def _control_of(written: Mapping[str, Any]) -> str | None:
    """Which control the vector was, where it is still there to be asked."""
    try:
        vector = locate_vector(recorded_location(written), offline=True)
    except ReasonvecError:
        return None
    if vector.fingerprint != written["fingerprint"]:
        return None  # another one lies there now
    kind = (vector.document.get("control") or {}).get("kind")
    return None if kind is None else str(kind)
