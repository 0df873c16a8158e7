"""How a quantity falls with width: a straight line in log-log, with the standard error of its slope."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

RESAMPLED = 2000


@dataclass(frozen=True)
class Slope:
    """value ∝ width^slope.

    widths, values: what the line goes through; error: the standard error of the slope, of the draw of networks alone.
    """

    widths: tuple[int, ...]
    values: tuple[float, ...]
    slope: float
    error: float

    def __str__(self) -> str:
        return f"{self.slope:+.2f} ± {self.error:.2f}"


def log_slope(x: Sequence[float], values: Float[Tensor, "*s w"]) -> Float[Tensor, "*s"]:
    """The least-squares slope of log values against log x.

    >>> round(log_slope([1.0, 10.0, 100.0], torch.tensor([5.0, 0.5, 0.05])).item(), 6)
    -1.0
    """
    at = torch.tensor([float(each) for each in x], dtype=torch.float64).log()
    at = at - at.mean()
    return values.to(torch.float64).log() @ at / at.square().sum()


def slope_of(samples: Mapping[int, Float[Tensor, " s"]], seed: int = 0) -> Slope:
    """The slope of the root mean square over networks; its error by resampling the networks of every width.

    Args:
        samples: {width: one number of each network}.
    """
    generator = torch.Generator().manual_seed(seed)
    squares = [values.to(torch.float64).square() for values in samples.values()]
    found = torch.stack([each.mean() for each in squares]).sqrt()
    resampled = torch.stack(
        [each[torch.randint(len(each), (RESAMPLED, len(each)), generator=generator)].mean(1) for each in squares], 1
    ).sqrt()
    widths = tuple(samples)
    error = float(log_slope(widths, resampled).std())
    return Slope(widths, tuple(found.tolist()), float(log_slope(widths, found)), error)
