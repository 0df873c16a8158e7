"""Two features that predict the label: how often each is right, and how strongly each shows in the input.

x = α_core z_core e₁ + α_shortcut z_shortcut e₂ + noise, the noise in all other directions. In training the sign of a
feature's z is the label in a share of the points, its predictivity; α is its availability. In new points both disagree.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

DIRECTIONS = 10
SPREAD = 0.25
"""Standard deviation of a feature's size around 1."""
NOISE = 0.5


@dataclass(frozen=True, eq=False)
class Features:
    """x: (n, 10). core, shortcut: (n,), ±1, the features' signs. y: (t,), labels of the training rows.

    train, new: rows.
    """

    x: Float[Tensor, "n d"]
    core: Float[Tensor, " n"]
    shortcut: Float[Tensor, " n"]
    y: Float[Tensor, " t"]
    train: Int[Tensor, " t"]
    new: Int[Tensor, " m"]


def signs(y: Float[Tensor, " n"], predictivity: float, generator: torch.Generator) -> Float[Tensor, " n"]:
    """y, but for as many points of each label as the predictivity asks for, drawn at random."""
    found = y.clone()
    for label in (-1.0, 1.0):
        rows = (y == label).nonzero()[:, 0]
        wrong = round((1 - predictivity) * len(rows))
        found[rows[torch.randperm(len(rows), generator=generator)[:wrong]]] *= -1
    return found


def features(
    predictivity: tuple[float, float], availability: tuple[float, float], train: int, new: int, seed: int
) -> Features:
    """Data of one cell; half of all points have each label.

    Args:
        predictivity, availability: of the core and of the shortcut.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(train // 2)
    asked = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(new // 2)
    core = torch.cat([signs(y, predictivity[0], generator), asked])
    shortcut = torch.cat([signs(y, predictivity[1], generator), -asked])
    x = NOISE * torch.randn(len(core), DIRECTIONS, generator=generator, dtype=torch.float64)
    for i, (sign, strength) in enumerate(zip((core, shortcut), availability, strict=True)):
        size = (1 + SPREAD * torch.randn(len(sign), generator=generator, dtype=torch.float64)).abs()
        x[:, i] = strength * sign * size
    return Features(x, core, shortcut, y, *torch.arange(len(x)).split([train, new]))
