"""Experiments: one file, one claim. `priorscope experiment list` shows them."""

from . import autokernel, boolean, calibration, counting, eigenvectors, ensemble, puzzle
from .experiment import EXPERIMENTS, Config, Criterion, Experiment, Outcome, experiment, find

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Criterion",
    "Experiment",
    "Outcome",
    "autokernel",
    "boolean",
    "calibration",
    "counting",
    "eigenvectors",
    "ensemble",
    "experiment",
    "find",
    "puzzle",
]
