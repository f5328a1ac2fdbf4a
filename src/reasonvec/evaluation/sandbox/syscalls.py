"""The system calls that a confined Python program may make, as a compiled seccomp filter. All others fail, and whatever
it may open it may open for reading alone; which files these are is Landlock's business."""

import errno
import os
from functools import cache
from typing import Any

_MEMORY = "brk mmap munmap mremap mprotect madvise membarrier futex set_robust_list set_tid_address rseq arch_prctl"
# `write` reaches the two pipes and /dev/null: nothing else is open, and nothing can be opened for writing
_FILES = (
    "read pread64 readv preadv write writev lseek close dup dup2 dup3 pipe pipe2 fstat stat lstat newfstatat statx "
    "access faccessat faccessat2 readlink readlinkat getdents getdents64 getcwd fadvise64 poll ppoll select pselect6"
)
_TIME = (
    "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getitimer setitimer alarm pause "
    "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack restart_syscall"
)
_ITSELF = (
    "exit exit_group getpid gettid getppid getuid geteuid getgid getegid getgroups getresuid getresgid getpgrp getpgid "
    "getsid getrusage getrlimit uname sysinfo sched_yield sched_getaffinity getcpu getrandom"
)
ALLOWED = tuple(f"{_MEMORY} {_FILES} {_TIME} {_ITSELF}".split())
"""Whatever their arguments. No socket, process, thread, signal, prctl or ioctl, and nothing that changes a file, its
mode, owner or times, which Landlock would not forbid."""

_UNKNOWN = ("clone3", "openat2", "close_range", "futex_waitv", "epoll_pwait2", "mseal", "map_shadow_stack")
"""The C library falls back to older calls where it hears that the kernel does not know these."""
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# not F_SETOWN and F_SETSIG: together they send any signal to any process of the user
_DESCRIPTOR = ("F_DUPFD", "F_DUPFD_CLOEXEC", "F_GETFD", "F_SETFD", "F_GETFL", "F_SETFL")


@cache
def compiled_filter() -> bytes:
    """The filter as an array of `struct sock_filter`, for every process that is started from here.

    Raises ImportError where pyseccomp is not installed, RuntimeError where libseccomp is not, OSError where it fails.
    """
    import fcntl  # here: Windows has none, and reads this module all the same

    import pyseccomp as seccomp  # here: its import looks for libseccomp with programs of the system

    rules = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    for name in ALLOWED:
        _add(seccomp, rules, seccomp.ALLOW, name)
    for name in _UNKNOWN:
        _add(seccomp, rules, seccomp.ERRNO(errno.ENOSYS), name)
    _add(seccomp, rules, seccomp.ERRNO(errno.ENOTTY), "ioctl")  # what Python expects of a file that is no terminal
    for name, place in (("open", 1), ("openat", 2)):
        _add(seccomp, rules, seccomp.ALLOW, name, seccomp.Arg(place, seccomp.MASKED_EQ, _WRITING, 0))
    for command in _DESCRIPTOR:
        _add(seccomp, rules, seccomp.ALLOW, "fcntl", seccomp.Arg(1, seccomp.EQ, getattr(fcntl, command)))
    # limits of its own, which it cannot raise
    _add(seccomp, rules, seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0))
    descriptor = os.memfd_create("filter")
    with os.fdopen(descriptor, "rb") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()


def _add(seccomp: Any, rules: Any, action: int, name: str, *arguments: Any) -> None:
    if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1:  # this libseccomp is older than the call
        rules.add_rule(action, name, *arguments)
