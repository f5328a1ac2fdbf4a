"""GSM8K's two metrics of lm-evaluation-harness, by its own filter and metric code, for comparison with ours.

The settings are those of its task gsm8k, version 3.0; a test runs the harness's whole pipeline beside them.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

from reasonvec.errors import MissingExtraError

_STRICT = (r"#### (\-?[0-9\.\,]+)", 0)
_FLEXIBLE = (r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1)
_IGNORED = [",", r"\$", r"(?s).*#### ", r"\.$"]
_DROPPED = re.compile(r"[,$]")
_LONGEST = 2000


def strict_match(completion: str, gold: str) -> bool:
    """Whether what follows the first `#### ` is `gold`, without commas, dollar signs and a closing full stop.

    Raises MissingExtraError where lm_eval is not installed, as does `flexible_extract`.
    """
    return _matches(*_STRICT, completion, gold)


def flexible_extract(completion: str, gold: str) -> bool:
    """Whether the last run of digits, points, commas and dollar signs is `gold`, compared in the same way."""
    return _matches(*_FLEXIBLE, completion, gold)


def _matches(pattern: str, select: int, completion: str, gold: str) -> bool:
    filter_of, exact_match = _harness()
    ((extracted,),) = filter_of(pattern, select).apply([[completion]], [{}])
    # what the metric drops first, dropped before its slower patterns, of quadratic time, see a text of any length
    extracted = _DROPPED.sub("", extracted)
    if len(extracted) > max(_LONGEST, len(gold) + 1):
        return False
    result = exact_match([extracted], [gold], regexes_to_ignore=_IGNORED, ignore_case=True)
    return bool(result["exact_match"] == 1)


@functools.cache
def _harness() -> tuple[Callable[[str, int], Any], Callable[..., Any]]:
    try:  # here, since training uses this room's rewards without the harness
        from lm_eval.api.metrics import exact_match_hf_evaluate
        from lm_eval.filters.extraction import RegexFilter
    except ImportError as error:
        raise MissingExtraError(
            f"Grading numbers reports the harness's metrics too and needs the Python package {error.name}, which is "
            'not installed. Install what evaluation needs with: pip install "reasonvec[eval]"'
        ) from error
    return functools.cache(lambda pattern, select: RegexFilter(pattern, group_select=select)), exact_match_hf_evaluate
