"""What a design can see: the smallest true difference that it would find often enough, so that a null can be read."""

from math import sqrt

from scipy.optimize import brentq
from scipy.stats import norm


def detectable_share(n: int, *, discordance: float, significance: float = 0.05, power: float = 0.8) -> float | None:
    """Smallest true difference, 0..1, that McNemar's test on `n` pairs finds with `power`; None where there is none.

    `discordance` is the share of pairs on which the two arms differ. Solves for d, in d·sqrt(n) =
    z(1 - significance/2)·sqrt(discordance) + z(power)·sqrt(discordance - d²): Connor 1987, Biometrics 43:207. The
    difference cannot exceed the discordance; where even that would not be found there is none.
    """
    if n < 1 or not 0 <= discordance <= 1:
        raise ValueError(f"{n} pairs of which a share of {discordance} differs: it takes one or more, and 0 to 1.")
    test, found = _quantiles(significance, power)

    def excess(difference: float) -> float:
        spread = sqrt(max(discordance - difference**2, 0.0))
        return difference * sqrt(n) - test * sqrt(discordance) - found * spread

    if not discordance or excess(discordance) < 0:
        return None
    return float(brentq(excess, 0.0, discordance))


def detectable_mean(error: float, *, significance: float = 0.05, power: float = 0.8) -> float:
    """Smallest true mean that is found with `power`, where its standard error is `error`.

    (z(1 - significance/2) + z(power))·error; with the error sqrt(variance/n) of n differences it is Miller's formula,
    arXiv:2411.00640.
    """
    test, found = _quantiles(significance, power)
    return (test + found) * error


def _quantiles(significance: float, power: float) -> tuple[float, float]:
    return float(norm.ppf(1 - significance / 2)), float(norm.ppf(power))
