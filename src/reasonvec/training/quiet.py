"""Silence of the libraries below: their bars and warnings, so that stderr is ours. Errors pass."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import transformers

_LOGGERS = ("transformers", "trl", "accelerate", "datasets")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, no progress bar and no warning of transformers, TRL, accelerate or datasets is shown."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    bars_of_transformers = transformers.utils.logging.is_progress_bar_enabled()
    bars_of_datasets = datasets.utils.logging.is_progress_bar_enabled()
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if bars_of_transformers:
            transformers.utils.logging.enable_progress_bar()
        if bars_of_datasets:
            datasets.enable_progress_bars()
