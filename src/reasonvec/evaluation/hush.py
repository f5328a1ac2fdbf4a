"""Silence around the field's libraries: no bars, no hints about settings that are ours on purpose. Errors pass."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import transformers

_LOGGERS = ("lm_eval", "lm-eval", "transformers", "accelerate")


@contextmanager
def hushed(*more: str) -> Iterator[None]:
    """Within it the harness, transformers and accelerate log errors alone, and so do the loggers named in `more`."""
    levels = {name: logging.getLogger(name).level for name in (*_LOGGERS, *more)}
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars:
            transformers.utils.logging.enable_progress_bar()
