"""Experiments: one file, one claim. `priorscope experiment list` shows them."""

from . import autokernel, circle, eigenvectors, learning_curves, parity, puzzle, risk, trust
from .experiment import EXPERIMENTS, Config, Criterion, Experiment, Outcome, experiment, find

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Criterion",
    "Experiment",
    "Outcome",
    "autokernel",
    "circle",
    "eigenvectors",
    "experiment",
    "find",
    "learning_curves",
    "parity",
    "puzzle",
    "risk",
    "trust",
]
