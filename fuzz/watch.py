"""Whether a reader answered one input as it must: with a result or a ReasonvecError, in bounded memory."""

import resource
import tracemalloc
from pathlib import Path
from types import ModuleType

from reasonvec.errors import ReasonvecError

MAX_EXTRA_BYTES = 100 << 20
"""What a reader may allocate beside the size of the files it reads."""


def attempt(target: ModuleType, data: bytes, directory: Path, *, traced: bool = False) -> Exception | None:
    """What `target` let out on `data` that it must not, or None.

    The address space of the process is limited for the time of the call. With `traced` every allocation is counted as
    well: slower, and it also sees what was allocated in memory that the process had already.
    """
    allowed = MAX_EXTRA_BYTES + len(data)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if traced:
        tracemalloc.start()
    _limit_address_space(_address_space() + allowed, limits)
    try:
        target.run(data, directory)
    except ReasonvecError as answer:
        str(answer)
    except Exception as error:  # noqa: BLE001  # any other exception is what is looked for
        return error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        if traced:
            tracemalloc.stop()
    if peak > allowed:
        return MemoryError(f"{peak} bytes were allocated for an input of {len(data)} bytes")
    return None


def reads(target: ModuleType, data: bytes, directory: Path) -> bool:
    """Whether `target` reads all of `data` without a word."""
    try:
        target.run(data, directory)
    except Exception:  # noqa: BLE001  # which one it is is `attempt`'s matter
        return False
    return True


def _address_space() -> int:
    """Bytes of this process's address space."""
    with Path("/proc/self/statm").open("rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def _limit_address_space(size: int, limits: tuple[int, int]) -> None:
    soft, hard = limits
    lowest = min((limit for limit in (size, soft, hard) if limit != resource.RLIM_INFINITY), default=size)
    resource.setrlimit(resource.RLIMIT_AS, (lowest, hard))
