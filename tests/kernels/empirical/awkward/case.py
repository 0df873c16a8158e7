"""One awkward module: how it is made, what its inputs are, and how its outputs are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Awkward:
    """points(n): inputs of n points, drawn from torch's generator. readout: None where the module returns a tensor."""

    name: str
    make: Callable[[], nn.Module]
    points: Callable[[int], Any]
    readout: Callable[[Any], Tensor] | None = None

    def model(self, seed: int = 0) -> nn.Module:
        """The module in eval mode, no parameter at a special value: gains are not one and biases not zero."""
        torch.manual_seed(seed)
        model = self.make().eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    def __repr__(self) -> str:
        return self.name


class Net(nn.Module):
    """A module written in one line: a rule forward(self, *inputs), its submodules and its bare parameters."""

    def __init__(self, rule: Callable[..., Any], **parts: Any):
        super().__init__()
        self.rule = rule
        for name, part in parts.items():
            is_parameter = isinstance(part, Tensor) and not isinstance(part, nn.Parameter)
            setattr(self, name, nn.Parameter(part) if is_parameter else part)

    def forward(self, *inputs: Any, **keywords: Any) -> Any:
        return self.rule(self, *inputs, **keywords)


def floats(*shape: int) -> Callable[[int], Tensor]:
    """Points of this shape."""
    return lambda n: torch.randn(n, *shape)


def tokens(length: int, vocabulary: int = 5) -> Callable[[int], Tensor]:
    """Points of so many integers."""
    return lambda n: torch.randint(vocabulary, (n, length))


def headed(make: Callable[[], nn.Module], points: Callable[[int], Any]) -> Callable[[], nn.Module]:
    """A layer with learnable layers before it (so that gradients pass through it) and after it."""

    def made() -> nn.Module:
        layer = make()
        x = points(2)
        stretch = Net(lambda m, x: x * m.gain, gain=torch.randn(x.shape[1:])) if x.is_floating_point() else None
        width = layer(x)[0].numel()
        return nn.Sequential(*([stretch] if stretch else []), layer, nn.Tanh(), nn.Flatten(), nn.Linear(width, 2))

    return made


def layer(name: str, make: Callable[[], nn.Module], points: Callable[[int], Any]) -> Awkward:
    """The case of one layer between two others."""
    return Awkward(name, headed(make, points), points)
