"""Experiments: one file, one claim. `priorscope experiment list` shows them."""

from . import (
    autokernel,
    circle,
    dynamics,
    eigenvectors,
    learning_curves,
    optimizers,
    parity,
    puzzle,
    relinearise,
    risk,
    transfer,
    width,
)
from .experiment import EXPERIMENTS, Config, Criterion, Experiment, Outcome, experiment, find

__all__ = [
    "EXPERIMENTS",
    "Config",
    "Criterion",
    "Experiment",
    "Outcome",
    "autokernel",
    "circle",
    "dynamics",
    "eigenvectors",
    "experiment",
    "find",
    "learning_curves",
    "optimizers",
    "parity",
    "puzzle",
    "relinearise",
    "risk",
    "transfer",
    "width",
]
