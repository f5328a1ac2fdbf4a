"""Silence around TRL: no bars, no warnings, no telemetry. Errors pass; progress is heard through callbacks."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import huggingface_hub.constants
import transformers

_LOGGERS = ("transformers", "trl", "accelerate", "datasets")


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers, TRL, accelerate and datasets write nothing to the terminal and phone nowhere.

    TRL's trainers report each use to the Hub unless told not to; nothing here phones home.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    transformers_bars = transformers.utils.logging.is_progress_bar_enabled()
    datasets_bars = datasets.utils.logging.is_progress_bar_enabled()
    telemetry_off = huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        transformers.utils.logging.disable_progress_bar()
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
            if transformers_bars:
                transformers.utils.logging.enable_progress_bar()
            if datasets_bars:
                datasets.enable_progress_bars()
