"""What `extract`, `apply`, `transfer` and `verify` tell people when they are done."""

from rich.console import RenderableType
from rich.text import Text

from reasonvec.terminal.parts import facts, number, percent, size
from reasonvec.weights.extraction import Extraction
from reasonvec.weights.job import Application
from reasonvec.weights.receipt import RealisedAlpha
from reasonvec.weights.verification import Verification


def extraction(extraction: Extraction) -> RenderableType:
    """What `extract` made."""
    made = extraction.to_json()
    relative = made["norm"] / made["base_norm"] if made["base_norm"] else None
    told = [
        ("vector", made["path"]),
        ("tensors", f"{made['tensors']}, {made['parameters']:,} parameters"),
        ("unchanged", f"{percent(made['unchanged_share'], 2)} of the entries"),
        ("norm", f"{number(made['norm'])}, {percent(relative, 3)} of the base donor's weights"),
    ]
    if made["left_out"]:
        told.append(("left out", f"{len(made['left_out'])} tensors"))
    if extraction.relation:
        told.append(("donors", f"{extraction.relation.case}: {extraction.relation.explanation}"))
    return facts(told)


def application(application: Application) -> RenderableType:
    """What `apply` or `transfer` did, or would do."""
    total = sum(application.shards.values())
    wrote = "would write" if application.realised is None else "wrote"
    told = [
        (wrote, f"{application.out}: {size(total)} in {len(application.shards)} file(s)"),
        ("added to", f"{application.changed_tensors} tensors"),
        ("not added to", f"{application.kept_tensors} tensors"),
    ]
    if application.realised:
        told.append(("realised", f"{percent(application.realised.overall, 2)} of the requested change"))
    return facts(told)


def realised_line(realised: RealisedAlpha) -> str:
    """Which share of the requested change the target's grid let through, overall and by layer, for stderr."""
    if realised.overall is None:
        return "realised: no change was requested of any entry"
    layers = ", ".join(f"{layer} {percent(share, 1)}" for layer, share in realised.layers.items())
    return f"realised: {percent(realised.overall, 2)} of the requested change; by layer: {layers}"


def verification(verification: Verification) -> RenderableType:
    """That all of it holds."""
    how = "computed again from the inputs, bit for bit" if verification.recomputed else "by their checksums"
    return Text(f"yes: {verification.path} is what it says it is ({verification.kind}, {verification.tensors} tensors, "
                f"{how}).")  # fmt: skip
