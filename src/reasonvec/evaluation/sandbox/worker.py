"""The process that runs a model's program: it is sent arguments, a line a call, and answers with plain values. It knows
neither the tests nor what they expect, and its exit status and output mean nothing."""

import random
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from reasonvec.evaluation.sandbox.wire import Lines, NotPlainError, PipeClosedError, decode, encode, send

_NAME = "program"


def run(settings: Mapping[str, Any]) -> None:
    """Define the program, say so, then answer calls until nobody asks any more.

    An answer is ("value", plain value), ("raised", its type's name, the name of the built-in type it derives from) or
    ("refused", what kind of value it is).
    """
    requests, replies = settings["descriptors"]
    lines = Lines(requests)
    function: list[Callable[..., Any]] = []

    def define() -> None:
        function.append(_define(settings["program"], settings["entry_point"]))

    send(replies, _answer(define))
    while function:
        try:
            positional, named = decode(lines.next())
        except PipeClosedError:
            return
        send(replies, _answer(lambda: function[0](*positional, **named)))  # noqa: B023 (called at once)


def _define(program: str, entry_point: str) -> Callable[..., Any]:
    module = types.ModuleType(_NAME)
    sys.modules[_NAME] = module  # dataclasses look their module up
    random.seed(0)
    exec(compile(program, _NAME, "exec"), module.__dict__)  # noqa: S102 (what all of this is for)
    function: Callable[..., Any] = module.__dict__[entry_point]
    return function


def _answer(call: Callable[[], Any]) -> bytes:
    try:
        return encode(("value", call()))
    except NotPlainError as error:
        return encode(("refused", str(error)))
    except BaseException as error:  # noqa: BLE001 (exits too: the program is asked again)
        kinds = [kind.__name__ for kind in type(error).__mro__]
        built_in = [kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins"]
        return encode(("raised", kinds[0], built_in[0]))
