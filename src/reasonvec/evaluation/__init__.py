"""Evaluation: problems, greedy generation, grading and paired statistics; knows nothing of vectors or of training."""
