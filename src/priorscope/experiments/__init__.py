"""Experiments: one file, one claim. `priorscope experiment list` shows them."""

from . import eigenvectors, puzzle
from .experiment import EXPERIMENTS, Config, Criterion, Experiment, Outcome, experiment, find

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Criterion",
    "Experiment",
    "Outcome",
    "eigenvectors",
    "experiment",
    "find",
    "puzzle",
]
