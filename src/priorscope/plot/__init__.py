"""Results -> matplotlib Axes: a result and an optional `ax=` in, the Axes out."""

from .beliefs import functions, modes, similarity, spectrum
from .generalization import audit, crossover, verdict
from .groups import similar
from .learnability import learnability, learning_curve
from .training import drift, learned, trajectory
from .trust import course, trust

__all__ = [
    "audit",
    "course",
    "crossover",
    "drift",
    "functions",
    "learnability",
    "learned",
    "learning_curve",
    "modes",
    "similar",
    "similarity",
    "spectrum",
    "trajectory",
    "trust",
    "verdict",
]
