"""A process gives up, for good, all it does not need; runs inside the new process, before anything untrusted does. What
the guarantees rest on must succeed; what not every host permits is tried, and how it went is returned."""

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Mapping
from typing import Any

_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS = 1, 4, 22, 38  # prctl(2)
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_RESTRICT_SELF = 446  # the same number on all architectures
_NEWUTS, _NEWIPC, _NEWUSER, _NEWNET = 0x04000000, 0x08000000, 0x10000000, 0x40000000
_CAPABILITY_VERSION_3 = 0x20080522

_LIMITS = {
    "AS": 1 << 30,  # bytes of memory, the interpreter's 30 MB included
    "FSIZE": 0,
    "NOFILE": 64,
    "NPROC": 0,  # neither a process nor a thread more, however many the user has
    "CORE": 0,
    "MEMLOCK": 0,
    "MSGQUEUE": 0,
}

_libc = ctypes.CDLL(None, use_errno=True)


class _Filter(ctypes.Structure):
    """`struct sock_fprog` of seccomp(2)."""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def confine(settings: Mapping[str, Any]) -> dict[str, str]:
    """Confine this process. Returns what came of the layers that not every host permits: `user`, `namespaces`.

    Raises OSError where one of the others fails; then nothing untrusted may run.
    """
    places = [path for path in sys.path if os.path.isdir(path)]  # noqa: PTH112 (pathlib costs milliseconds a start)
    opened = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in places}
    found = {"user": _become(settings["user"]), "namespaces": _leave_namespaces()}
    sys.path = [_reachable(path, descriptor) for path, descriptor in opened.items()]
    for name, value in {**_LIMITS, "CPU": settings["cpu_s"]}.items():
        _limit(getattr(resource, f"RLIMIT_{name}"), value)
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)  # to be killed when the thread that started this process ends, however
    if os.getppid() != settings["parent"]:
        raise OSError("the process that started this one has ended")
    _prctl(_SET_DUMPABLE, 0)  # no other process of the user may look into this one
    _drop_capabilities()
    _prctl(_SET_NO_NEW_PRIVS, 1)
    if settings["ruleset"] is not None:
        _check(_libc.syscall(_LANDLOCK_RESTRICT_SELF, settings["ruleset"], 0), "landlock_restrict_self")
        os.close(settings["ruleset"])
    if settings["filter"] is not None:
        code = bytes.fromhex(settings["filter"])
        program = _Filter(len(code) // 8, code)  # named, so that it lives until it is read
        _prctl(_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program))
    return found


def _become(user: int | None) -> str:
    """Become `user`, where this is root. A container may lack the right to: then capabilities are all that goes."""
    if user is None:
        return f"stays user {os.getuid()}"
    try:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    except OSError as error:
        return f"stays root, without its capabilities: {error.strerror}"
    return f"root becomes user {user}"


def _leave_namespaces() -> str:
    """Not the PID namespace, whose first process would have to be forked, and reaped by whoever is there when it dies:
    no process can be started at all."""
    if _libc.unshare(_NEWUSER | _NEWNET | _NEWIPC | _NEWUTS):
        return f"not permitted here: {os.strerror(ctypes.get_errno())}"
    return "user, network, IPC and UTS namespaces of its own"


def _reachable(path: str, descriptor: int) -> str:
    """A directory of Python's modules, or a way to it for a user that may not walk there.

    An interpreter below /root, mode 700, is the rule in containers. The open directory leads to it, but not out of it.
    """
    if os.access(path, os.R_OK | os.X_OK):
        os.close(descriptor)
        return path
    way = f"/proc/self/fd/{descriptor}"
    for module in sys.modules.values():  # packages that are imported already look for their modules by their own paths
        if found := getattr(module, "__path__", None):
            module.__path__ = [place.replace(path, way, 1) if place.startswith(path) else place for place in found]
    return way


def _limit(kind: int, value: int) -> None:
    _, most = resource.getrlimit(kind)
    least = value if most == resource.RLIM_INFINITY else min(value, most)  # the host's own limit may be lower
    resource.setrlimit(kind, (least, least))


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing), "capset")


def _prctl(option: int, value: int, third: int = 0) -> None:
    arguments = (ctypes.c_ulong(number) for number in (value, third, 0, 0))
    _check(_libc.prctl(option, *arguments), f"prctl({option})")


def _check(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
