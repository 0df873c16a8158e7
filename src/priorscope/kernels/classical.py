"""Classical kernels of real vectors, (n, d): controls, and what courses begin with."""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from ..data.inputs import Inputs
from ..errors import DataError
from .kernel import Kernel, Origin


def _vectors(x: Inputs) -> Tensor:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise DataError("x", "is not a floating tensor", "Classical kernels take vectors, (n, d)")
    return x.reshape(len(x), -1)


def _squared_distances(x1: Tensor, x2: Tensor) -> Tensor:
    # Differences first: the expanded square loses half the digits at near points.
    return (x1[:, None] - x2[None]).square().sum(-1)


def _positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise DataError(name, f"is {value}", "Give a positive number")


@dataclass(frozen=True, eq=False)
class RBF(Kernel):
    """k(x, x') = variance · exp(−‖x − x'‖² / (2 lengthscale²)).

    Source: Rasmussen and Williams 2006, eq. 4.9.
    """

    lengthscale: float = 1.0
    variance: float = 1.0
    origin = Origin("classical")

    def __post_init__(self) -> None:
        _positive(lengthscale=self.lengthscale, variance=self.variance)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        a, b = _vectors(x1), _vectors(x1 if x2 is None else x2)
        return self.variance * torch.exp(-_squared_distances(a, b) / (2 * self.lengthscale**2))

    def variances(self, x: Inputs) -> Tensor:
        return torch.full_like(_vectors(x)[:, 0], self.variance)


@dataclass(frozen=True, eq=False)
class Periodic(Kernel):
    """k(x, x') = variance · exp(−2 Σᵢ sin²(π (xᵢ − x'ᵢ) / period) / lengthscale²).

    Source: Rasmussen and Williams 2006, eq. 4.31 (MacKay 1998).
    """

    period: float = 2 * pi
    lengthscale: float = 1.0
    variance: float = 1.0
    origin = Origin("classical")

    def __post_init__(self) -> None:
        _positive(period=self.period, lengthscale=self.lengthscale, variance=self.variance)

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        a, b = _vectors(x1), _vectors(x1 if x2 is None else x2)
        sines = torch.sin(pi * (a[:, None] - b[None]) / self.period).square().sum(-1)
        return self.variance * torch.exp(-2 * sines / self.lengthscale**2)

    def variances(self, x: Inputs) -> Tensor:
        return torch.full_like(_vectors(x)[:, 0], self.variance)


@dataclass(frozen=True, eq=False)
class Linear(Kernel):
    """k(x, x') = weight_variance · x·x' + bias_variance: linear regression in weight space.

    Source: Rasmussen and Williams 2006, section 2.1.
    """

    weight_variance: float = 1.0
    bias_variance: float = 0.0
    origin = Origin("classical")

    def __post_init__(self) -> None:
        _positive(weight_variance=self.weight_variance)
        if self.bias_variance < 0:
            raise DataError("bias_variance", f"is {self.bias_variance}", "Give a number of at least 0")

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        a, b = _vectors(x1), _vectors(x1 if x2 is None else x2)
        return self.weight_variance * a @ b.T + self.bias_variance

    def variances(self, x: Inputs) -> Tensor:
        return self.weight_variance * _vectors(x).square().sum(-1) + self.bias_variance


@dataclass(frozen=True, eq=False)
class ArcCosine(Kernel):
    """k(x, x') = ‖x‖ᵈ ‖x'‖ᵈ J_d(θ) / π, the kernel of a layer of step (d = 0) or ReLU (d = 1) units.

    J_0 = π − θ, J_1 = sin θ + (π − θ) cos θ. Source: Cho and Saul 2009.
    """

    degree: int = 1
    origin = Origin("classical")

    def __post_init__(self) -> None:
        if self.degree not in (0, 1):
            raise DataError("degree", f"is {self.degree}", "Give 0 (step) or 1 (ReLU)")

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        a, b = _vectors(x1), _vectors(x1 if x2 is None else x2)
        tiny = torch.finfo(a.dtype).tiny
        norm_a, norm_b = a.norm(dim=1, keepdim=True), b.norm(dim=1, keepdim=True)
        u, v = a / norm_a.clamp_min(tiny), b / norm_b.clamp_min(tiny)
        # arccos of a rounded cosine loses half the digits; half-angles from differences and sums do not.
        theta = 2 * torch.atan2((u[:, None] - v[None]).norm(dim=-1), (u[:, None] + v[None]).norm(dim=-1))
        if self.degree == 0:
            return (pi - theta) / pi
        return norm_a * norm_b.T * (torch.sin(theta) + (pi - theta) * torch.cos(theta)) / pi

    def variances(self, x: Inputs) -> Tensor:
        v = _vectors(x)
        return torch.ones_like(v[:, 0]) if self.degree == 0 else v.square().sum(-1)
