"""From runs to evidence: what one run shows, what two show beside each other, and what must not be compared."""

from reasonvec.evaluation.comparison.compare import RunComparison, compare_runs
from reasonvec.evaluation.comparison.summary import RunSummary, summarise

__all__ = ["RunComparison", "RunSummary", "compare_runs", "summarise"]
