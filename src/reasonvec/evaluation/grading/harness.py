"""GSM8K's two metrics of lm-evaluation-harness, by its own filter and metric code, for comparison with ours.

The settings are those of its task gsm8k, version 3.0; a test runs the harness's whole pipeline beside them.
"""

import re

from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter

_STRICT = RegexFilter(regex_pattern=r"#### (\-?[0-9\.\,]+)")
_FLEXIBLE = RegexFilter(regex_pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
_IGNORED = [",", r"\$", r"(?s).*#### ", r"\.$"]
_DROPPED = re.compile(r"[,$]")
_LONGEST = 2000


def strict_match(completion: str, gold: str) -> bool:
    """Whether what follows the first `#### ` is `gold`, without commas, dollar signs and a closing full stop."""
    return _matches(_STRICT, completion, gold)


def flexible_extract(completion: str, gold: str) -> bool:
    """Whether the last run of digits, points, commas and dollar signs is `gold`, compared in the same way."""
    return _matches(_FLEXIBLE, completion, gold)


def _matches(extraction: RegexFilter, completion: str, gold: str) -> bool:
    ((extracted,),) = extraction.apply([[completion]], [{}])
    # what the metric drops first, dropped before its slower patterns, of quadratic time, see a text of any length
    extracted = _DROPPED.sub("", extracted)
    if len(extracted) > max(_LONGEST, len(gold) + 1):
        return False
    result = exact_match_hf_evaluate([extracted], [gold], regexes_to_ignore=_IGNORED, ignore_case=True)
    return bool(result["exact_match"] == 1)
