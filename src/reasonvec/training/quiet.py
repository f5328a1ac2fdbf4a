"""Silence around TRL: no bars, no warnings, no telemetry. Errors pass; progress is heard through callbacks."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import datasets
import huggingface_hub.constants

from reasonvec.evaluation.hush import hushed


@contextmanager
def quiet() -> Iterator[None]:
    """Within it, transformers, TRL, accelerate and datasets write nothing to the terminal and phone nowhere.

    TRL's trainers report each use to the Hub unless told not to; nothing here phones home.
    """
    bars = datasets.utils.logging.is_progress_bar_enabled()
    telemetry_off = huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY
    with hushed("trl", "datasets"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = True
        datasets.disable_progress_bars()
        try:
            yield
        finally:
            huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY = telemetry_off
            if bars:
                datasets.enable_progress_bars()
