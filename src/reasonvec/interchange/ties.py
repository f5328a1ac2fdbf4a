"""Which matrices of a checkpoint are one: input and output embedding of a model that ties them, of which only one may
be stored. Adapters name both, so this is asked for names that a checkpoint does not hold too.
"""

from reasonvec.weights.alignment import Twins, may_tie
from reasonvec.weights.checkpoint import Checkpoint, TensorReader

INPUT_EMBEDDINGS = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
OUTPUT_EMBEDDINGS = ("lm_head", "embed_out", "output")


def module_of(name: str) -> str:
    """The last part of a tensor's name that is not `weight`."""
    return name.removesuffix(".weight").rpartition(".")[2]


class Ties:
    """The ties of one checkpoint."""

    def __init__(self, checkpoint: Checkpoint, reader: TensorReader) -> None:
        self._tensors, self._may_tie = checkpoint.tensors, may_tie(checkpoint)
        self._twins = Twins(checkpoint, reader) if self._may_tie else None

    def stored(self, name: str) -> str | None:
        """The stored tensor that `name` is one with; of several copies the last by name, which is the input embedding
        in most models. None for a name that is neither stored nor tied to what is."""
        if name in self._tensors:
            return max([name, *self._copies(name)])
        partner = self._partner(name)
        return self.stored(partner) if partner else None

    def copies(self) -> dict[str, str]:
        """Every stored tensor that is a copy -> the one of its copies that stands for all."""
        found = {name: self.stored(name) for name in self._tensors}
        return {name: twin for name, twin in found.items() if twin and twin != name}

    def is_tied(self, name: str) -> bool:
        """Whether a stored tensor serves as another one too."""
        if self._copies(name):
            return True
        return self._may_tie and _is_end(name) and self._partner(name) is None

    def _copies(self, name: str) -> list[str]:
        """Bitwise copies among the embeddings. Layers can be copies too, of a model that was made deeper; they are not
        tied, and train apart."""
        if self._twins is None or not _is_end(name):
            return []
        return [copy for copy in self._twins.of(name) if _is_end(copy)]

    def _partner(self, name: str) -> str | None:
        """The only stored embedding of the other end."""
        if not self._may_tie or not _is_end(name):
            return None
        other = INPUT_EMBEDDINGS if module_of(name) in OUTPUT_EMBEDDINGS else OUTPUT_EMBEDDINGS
        found = [stored for stored in self._tensors if stored.endswith(".weight") and module_of(stored) in other]
        return found[0] if len(found) == 1 else None


def _is_end(name: str) -> bool:
    return name.endswith(".weight") and module_of(name) in (*INPUT_EMBEDDINGS, *OUTPUT_EMBEDDINGS)
