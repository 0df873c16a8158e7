"""Experiments: one file, one claim. `priorscope experiment list` shows them."""

from . import autokernel, coin, eigenvectors, husky, puzzle, shortcut
from .experiment import EXPERIMENTS, Config, Criterion, Experiment, Outcome, experiment, find

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Criterion",
    "Experiment",
    "Outcome",
    "autokernel",
    "coin",
    "eigenvectors",
    "experiment",
    "find",
    "husky",
    "puzzle",
    "shortcut",
]
