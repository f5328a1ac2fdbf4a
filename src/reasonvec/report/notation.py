"""How numbers and arms are written for readers: one spelling for the whole page. No arithmetic beyond rounding."""

import re
from math import floor, isfinite, log10

_NO_BREAK = "\u00a0"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SCALED_ARM = re.compile(r"target([+-]\d*\.?\d+)v")
_NUMBERED_CONTROL = re.compile(r"(random|permuted)(?:-(\d+))?")


def percent(value: float | None, digits: int = 1) -> str:
    """`value`, already in percent, as ``53.4 %``; a dash where nothing was measured."""
    return "–" if value is None or not isfinite(value) else f"{value:.{digits}f}{_NO_BREAK}%"


def small_percent(value: float | None) -> str:
    """A share in percent that may be tiny, to two significant digits: ``0.54 %``, ``0.0031 %``, ``12 %``."""
    if value is None or not isfinite(value):
        return "–"
    digits = 0 if abs(value) < 1e-12 else min(12, max(0, 1 - floor(log10(abs(value)))))
    return f"{value:.{digits}f}{_NO_BREAK}%"


def share(value: float | None) -> str:
    """A share in 0..1 as a percentage to two significant digits; a dash where there is none."""
    return small_percent(None if value is None else 100 * value)


def points(value: float) -> str:
    """A difference in percentage points with its sign: ``+17.2``, ``−3.0``, ``0.0``."""
    text = f"{abs(value):.1f}"
    sign = "" if float(text) == 0 else "+" if value > 0 else "−"
    return f"{sign}{text}"


def span(low: float, high: float) -> str:
    """An interval of differences: ``+12.1 to +22.3``."""
    return f"{points(low)} to {points(high)}"


def p_value(p: float) -> str:
    """A p value as it stands in a sentence: ``p = 0.031``, never broken over lines."""
    number = p_number(p)
    return f"p{_NO_BREAK}{number}" if number.startswith("<") else f"p{_NO_BREAK}={_NO_BREAK}{number}"


def p_number(p: float) -> str:
    """``0.031``; small values as powers of ten, since ``0.000`` would claim certainty."""
    if p >= 0.995:
        return "1"
    if p >= 0.001:
        return f"{p:.2f}" if p >= 0.095 else f"{p:.2g}"
    if p < 1e-300:
        return f"<{_NO_BREAK}10⁻³⁰⁰"
    mantissa, exponent = f"{p:.0e}".split("e")
    return f"{mantissa}{_NO_BREAK}×{_NO_BREAK}10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def count(value: int | None) -> str:
    """A count with thousands set apart: ``156,608``; a dash where there is none."""
    return "–" if value is None else f"{value:,}"


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if 0 < seconds < 10:
        return f"{seconds:.1f}{_NO_BREAK}s"
    whole = round(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    parts = [(hours, "h"), (minutes, "min"), (rest if not hours else 0, "s")]
    return " ".join(f"{number}{_NO_BREAK}{unit}" for number, unit in parts if number) or f"0{_NO_BREAK}s"


def signed_alpha(alpha: float) -> str:
    """Alpha as it is said on the page: ``1``, ``−0.5``, ``0.25``."""
    return f"{alpha:g}".replace("-", "−")


def alpha_of(arm: str) -> float | None:
    """The alpha that an arm's name states, 0 for the target itself, None where it states none."""
    if arm == "target":
        return 0.0
    scaled = _SCALED_ARM.fullmatch(arm)
    return float(scaled[1]) if scaled else None


def arm_label(arm: str) -> str:
    """An arm's name as a reader meets it: ``target+1.0v`` is "target + v", ``random-2`` is "random vector 2"."""
    known = {"sft": "SFT donor", "grpo": "GRPO donor"}
    if arm in known:
        return known[arm]
    alpha = alpha_of(arm)
    if alpha:
        size = "" if abs(alpha) == 1 else f"{abs(alpha):g}{_NO_BREAK}"
        return f"target{_NO_BREAK}{'+' if alpha > 0 else '−'}{_NO_BREAK}{size}v"
    control = _NUMBERED_CONTROL.fullmatch(arm)
    if control:
        words = {"random": "random vector", "permuted": "shuffled vector"}[control[1]]
        return f"{words} {control[2]}" if control[2] else words
    return arm
