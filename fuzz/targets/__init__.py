"""One module for each thing that reads files of strangers. A target has

    seeds() -> dict[str, bytes]                 small inputs to begin with, by name; the same in every run
    run(data: bytes, directory: Path) -> None   read `data`, laid out below the empty `directory` where it needs files

and `run` lets through what the reader raises: ReasonvecError is an answer, anything else a finding. A new target is a
module here and a line below.
"""

from types import ModuleType

from fuzz.targets import block, checkpoint, document, header, strict_json, tokenizer, vector, verify

TARGETS: dict[str, ModuleType] = {
    "block": block,
    "json": strict_json,
    "header": header,
    "checkpoint": checkpoint,
    "tokenizer": tokenizer,
    "document": document,
    "vector": vector,
    "verify": verify,
}
