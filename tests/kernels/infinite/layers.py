"""Small networks of every kind of layer, at any width: rates of parameters without a law, and points."""

import torch
from torch import Tensor

from priorscope.experiments.architectures import ADJACENCY, ATTENTION, IDS, OTHERS, RECURRENT, Written, sample

__all__ = ["ADJACENCY", "ARCHITECTURES", "NAMED", "Written", "points", "sample"]

ARCHITECTURES = RECURRENT | ATTENTION | OTHERS
NAMED = {name: {"p": 0.7} for name in ("position encodings", "class token", "transformer encoder")}


def points(name: str, n: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if name == "embedding":
        return torch.randint(0, IDS, (n, 4), generator=generator)
    return torch.randn(n, 4, 3, generator=generator)
