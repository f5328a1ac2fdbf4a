"""Overlap: which problems of a benchmark stand in the text that a donor was trained on."""

from reasonvec.evaluation.overlap.search import Overlap, ProblemOverlap, find_overlap

__all__ = ["Overlap", "ProblemOverlap", "find_overlap"]
