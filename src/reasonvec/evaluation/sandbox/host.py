"""What this host offers to confine a process with, found once: an interpreter, a seccomp filter, a Landlock ruleset."""

import os
import sys
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from reasonvec.evaluation.sandbox.syscalls import compiled_filter

NOBODY = 65534
"""The user that root becomes, nobody: it owns nothing."""
MIN_LANDLOCK = 3
"""ABI of Linux 6.2, the first in which a file that may only be read cannot be emptied."""
_READABLE = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")


@dataclass(frozen=True)
class Host:
    """Found once for all processes that are started here."""

    python: str
    """The interpreter, started as whoever grades: where that is root, the process becomes `user` by itself."""
    search: tuple[str, ...]
    """Where it finds reasonvec."""
    filter: bytes | None
    """The compiled seccomp filter."""
    ruleset: int | None
    """Descriptor of the Landlock ruleset, never closed."""
    user: int | None
    """The user that confined processes become; None keeps the caller, who is not root."""
    seccomp: str
    """Why there is no filter, or what it does."""
    landlock: str
    """Why there is no ruleset, or its ABI."""

    @property
    def confines(self) -> bool:
        """Whether both layers that every guarantee rests on are there."""
        return self.filter is not None and self.ruleset is not None


@cache
def host() -> Host:
    """What there is here. Linux only: the caller has looked at `sys.platform`."""
    rules, seccomp = _filter()
    ruleset, landlock = _ruleset()
    root = str(Path(__file__).parents[3])
    return Host(sys.executable or sys._base_executable, (root,), rules, ruleset,  # type: ignore[attr-defined]
                NOBODY if os.geteuid() == 0 else None, seccomp, landlock)  # fmt: skip


def readable() -> tuple[Path, ...]:
    """The directories that confined programs may read: shared libraries, and Python's own modules."""
    # the interpreter's own, not a virtual environment's
    paths = [*_READABLE, f"{sys.base_prefix}/lib", sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    return tuple(dict.fromkeys(path for text in paths if (path := Path(text).resolve()).is_dir()))


def _filter() -> tuple[bytes | None, str]:
    try:
        return compiled_filter(), "only the system calls of a lone program that reads"
    except ImportError:
        return None, 'pyseccomp is not installed: pip install "reasonvec[eval]"'
    except (RuntimeError, OSError) as error:
        return None, f"libseccomp.so.2 cannot be used ({error}): install libseccomp2"


def _ruleset() -> tuple[int | None, str]:
    try:
        import py_landlock as landlock
        from py_landlock.abi import get_supported_fs, get_supported_net, get_supported_scope
    except ImportError:
        return None, 'py-landlock is not installed: pip install "reasonvec[eval]"'
    try:
        abi = landlock.get_abi_version()
        if abi < MIN_LANDLOCK:
            return None, f"the kernel's Landlock has ABI {abi}; {MIN_LANDLOCK} (Linux 6.2) is the first that is enough"
        attributes = landlock.RulesetAttr()
        attributes.handled_access_fs = get_supported_fs(abi)
        attributes.handled_access_net = get_supported_net(abi)
        attributes.scoped = get_supported_scope(abi)
        ruleset = landlock.create_ruleset(attributes)
        read = landlock.AccessFs.READ_FILE | landlock.AccessFs.READ_DIR | landlock.AccessFs.EXECUTE
        for path in readable():
            _allow(landlock, ruleset, path, read)
        if (cache_of_libraries := Path("/etc/ld.so.cache")).exists():
            _allow(landlock, ruleset, cache_of_libraries, landlock.AccessFs.READ_FILE)
        return int(ruleset), f"ABI {abi}"
    except (landlock.LandlockError, OSError) as error:
        return None, f"the kernel does not offer Landlock here ({error}): Linux 6.2 or newer with lsm=landlock"


def _allow(landlock: Any, ruleset: int, path: Path, access: int) -> None:
    """Let what is below `path` be accessed so."""
    rule = landlock.PathBeneathAttr()
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        rule.allowed_access, rule.parent_fd = access, descriptor
        landlock.add_rule(ruleset, rule)
    finally:
        os.close(descriptor)
