"""Grading: is a completion right? One function serves the reward that trains and the measurement that reports."""

from reasonvec.evaluation.grading.marked import Grader, extract_marked_answer, grade_marked_answer, is_correct
from reasonvec.evaluation.grading.verdict import Grade, grade

__all__ = ["Grade", "Grader", "extract_marked_answer", "grade", "grade_marked_answer", "is_correct"]
