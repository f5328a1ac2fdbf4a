"""One prefix between two sets of tensor names: what a framework writes as `module.model.layers.0...` is
`model.layers.0...` in the checkpoint. Names that differ by more than a prefix are not guessed at.
"""

from collections.abc import Collection
from dataclasses import dataclass

_PROBES = 8
"""Names that are looked at for a prefix; one is enough unless it is missing on the other side."""


@dataclass(frozen=True)
class Renaming:
    """A name of theirs without `theirs` and with `ours` before it is a name of ours."""

    theirs: str = ""
    ours: str = ""

    def to_ours(self, name: str) -> str | None:
        """Our name for a name of theirs; None for one without the prefix."""
        return self.ours + name.removeprefix(self.theirs) if name.startswith(self.theirs) else None

    def to_theirs(self, name: str) -> str | None:
        """Their name for a name of ours; None for one without the prefix."""
        return self.theirs + name.removeprefix(self.ours) if name.startswith(self.ours) else None

    def __str__(self) -> str:
        return f"{self.theirs or '(nothing)'} for {self.ours or '(nothing)'}"


def renamings(theirs: Collection[str], ours: Collection[str]) -> list[Renaming]:
    """The prefixes that some name of theirs and some name of ours differ by, none at all first, then by their length.

    A few of our names are looked up among theirs by their last parts, so a wrong proposal is possible and a right one
    is not missed unless all of those few are missing.
    """
    found = {Renaming()}
    by_ending: dict[str, list[str]] = {}
    for name in theirs:
        by_ending.setdefault(_ending(name), []).append(name)
    # rare endings first: of 7680 experts one says no more than the only `norm.weight`, and proposes 7680 prefixes
    known = sorted((name for name in ours if _ending(name) in by_ending),
                   key=lambda name: (len(by_ending[_ending(name)]), name))  # fmt: skip
    for name in known[:_PROBES]:
        for other in by_ending[_ending(name)]:
            found.add(_difference(other, name))
    return sorted(found, key=lambda renaming: (len(renaming.theirs) + len(renaming.ours), renaming.theirs))


def _ending(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def _difference(theirs: str, ours: str) -> Renaming:
    """What is left of two names without the parts at their end that agree."""
    first, second = theirs.split("."), ours.split(".")
    while first and second and first[-1] == second[-1]:
        first.pop()
        second.pop()
    return Renaming("".join(f"{part}." for part in first), "".join(f"{part}." for part in second))
