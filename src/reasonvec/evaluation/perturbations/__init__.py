"""Perturbations: seeded changes of a benchmark's questions whose gold answers stay known."""

from reasonvec.evaluation.perturbations.suite import OPERATORS, SUITE_VERSION, Perturbation, perturb, perturb_problem

__all__ = ["OPERATORS", "SUITE_VERSION", "Perturbation", "perturb", "perturb_problem"]
