"""Runs: one arm on one benchmark, every outcome kept; what is on disk, and nothing of how it was measured."""

from reasonvec.evaluation.runs.outcome import Outcome
from reasonvec.evaluation.runs.record import Recorder, Run, find_runs, load_run, open_run

__all__ = ["Outcome", "Recorder", "Run", "find_runs", "load_run", "open_run"]
