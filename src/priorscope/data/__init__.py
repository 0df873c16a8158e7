"""Named data sets and the user's own files -> tensors; this floor knows no model."""

from .dataset import Dataset, Split, split
from .named import NAMES, named
from .tables import load

__all__ = ["NAMES", "Dataset", "Split", "load", "named", "split"]
