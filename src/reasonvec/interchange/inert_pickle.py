"""Read a pickle without running it: what it would import becomes a name, what it would call a record of the call.

A pickle is a program; Python's own reader imports and calls whatever it names. Here no name is ever looked up and
nothing is called, so the worst that a hostile one can do is to be refused. Only the few operations are known that
plain data and records of it need.
"""

import io
import pickle
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

from reasonvec.errors import CheckpointError


@dataclass(frozen=True)
class Name:
    """Something that the pickle would have imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Record:
    """Something that the pickle would have called or made."""

    def __init__(self, of: Name, arguments: tuple[Any, ...]) -> None:
        self.of, self.arguments = of, arguments
        self.state: Any = None
        """What it would have been filled with afterwards."""

    @property
    def kind(self) -> str:
        """The last part of the name of what was called."""
        return self.of.name

    def field(self, name: str) -> Any:
        """A field of its state; None where it has none of that name."""
        return self.state.get(name) if isinstance(self.state, dict) else None


class _Refused(pickle.UnpicklingError):
    pass


_OPERATIONS = (
    pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.POP, pickle.POP_MARK,
    pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1,
    pickle.BINFLOAT, pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.BINUNICODE8, pickle.BINBYTES,
    pickle.SHORT_BINBYTES, pickle.EMPTY_TUPLE, pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3,
    pickle.EMPTY_LIST, pickle.APPEND, pickle.APPENDS, pickle.EMPTY_DICT, pickle.SETITEM, pickle.SETITEMS,
    pickle.EMPTY_SET, pickle.ADDITEMS, pickle.FROZENSET, pickle.MEMOIZE, pickle.BINPUT, pickle.LONG_BINPUT,
    pickle.BINGET, pickle.LONG_BINGET, pickle.BINPERSID, pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.REDUCE,
    pickle.NEWOBJ, pickle.BUILD,
)  # fmt: skip

_FAULTS = (
    pickle.UnpicklingError, EOFError, AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError,
    MemoryError, RecursionError, AssertionError, struct.error,
)  # fmt: skip
"""What the reader of the standard library raises on damaged input."""


# the reader in Python: the one in C cannot be given other operations, and takes memory for any memo number it meets
class _Inert(pickle._Unpickler):
    def __init__(self, data: bytes, allowed: Collection[str]) -> None:
        super().__init__(io.BytesIO(data))
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Name:
        found = Name(module, name)
        if str(found) not in self._allowed:
            raise _Refused(f"it names {str(found)!a:.120}")
        return found

    def persistent_load(self, pid: Any) -> Record:
        return Record(Name("", "persistent"), pid if isinstance(pid, tuple) else (pid,))

    def load_reduce(self) -> None:
        arguments, of = self.stack.pop(), self.stack.pop()  # type: ignore[attr-defined]
        if not isinstance(of, Name) or not isinstance(arguments, tuple):
            raise _Refused("it calls what is no name")
        self.stack.append(Record(of, arguments))  # type: ignore[attr-defined]

    def load_build(self) -> None:
        state, record = self.stack.pop(), self.stack[-1]  # type: ignore[attr-defined]
        if not isinstance(record, Record):
            raise _Refused("it fills what is no record")
        record.state = state

    def refuse(self) -> None:
        raise _Refused("it has an operation that plain data does not need")

    dispatch: ClassVar[dict[int, Any]] = {
        **dict.fromkeys(range(256), refuse),
        **{operation[0]: pickle._Unpickler.dispatch[operation[0]] for operation in _OPERATIONS},
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.BUILD[0]: load_build,
    }


def read_inertly(data: bytes, allowed: Collection[str], what: str) -> Any:
    """The content of a pickle as plain data, `Name` and `Record`; `what` says in messages where it lies.

    Raises CheckpointError for one that names anything but `allowed` (`module.name`), or is damaged.
    """
    try:
        return _Inert(data, allowed).load()
    except _Refused as error:
        raise CheckpointError(
            f"{what} is a pickle, a program that its reader would run, and {error}. reasonvec runs none of it and "
            f"knows only what torch.distributed.checkpoint writes, so it is refused. If you trust its origin, convert "
            f"it with torch: python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIR FILE."
        ) from None
    except _FAULTS as error:
        raise CheckpointError(f"{what} cannot be read ({type(error).__name__}: {str(error)!a:.120}). It was cut off or "
                              f"damaged; copy it again.") from None  # fmt: skip
