"""A sandbox for model-written code: two confined processes, a self-test of what holds here, and refusal where it does
not. Says nothing about how a program is found in a completion; docs/security.md says what it does not protect from."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reasonvec.evaluation.sandbox.judging import judge
    from reasonvec.evaluation.sandbox.report import Guarantee, SandboxReport, require, self_test

__all__ = ["Guarantee", "SandboxReport", "judge", "require", "self_test"]


def __getattr__(name: str) -> Any:
    # on first use: the confined processes import this package too, and start several times a second
    if name in __all__:
        from reasonvec.evaluation.sandbox import judging, report

        return getattr(judging if name == "judge" else report, name)
    raise AttributeError(f"module 'reasonvec.evaluation.sandbox' has no attribute {name!r}")
