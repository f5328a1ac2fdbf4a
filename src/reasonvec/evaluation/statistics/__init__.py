"""Intervals, tests and what a design can see: pure functions of numbers, seeded where they draw. Knows of no runs."""

from reasonvec.evaluation.statistics.design import detectable_mean, detectable_share
from reasonvec.evaluation.statistics.families import best_of_optimism, holm, rank_p
from reasonvec.evaluation.statistics.intervals import (
    Interval,
    clustered_interval,
    mean_interval,
    stratified_interval,
    wilson_interval,
)
from reasonvec.evaluation.statistics.paired import (
    PairedDifference,
    exact_mcnemar,
    mid_p_mcnemar,
    paired_difference,
)
from reasonvec.evaluation.statistics.resampling import bootstrap_interval, sign_flip_p
from reasonvec.evaluation.statistics.samples import pass_at_k

__all__ = [
    "Interval",
    "PairedDifference",
    "best_of_optimism",
    "bootstrap_interval",
    "clustered_interval",
    "detectable_mean",
    "detectable_share",
    "exact_mcnemar",
    "holm",
    "mean_interval",
    "mid_p_mcnemar",
    "paired_difference",
    "pass_at_k",
    "rank_p",
    "sign_flip_p",
    "stratified_interval",
    "wilson_interval",
]
