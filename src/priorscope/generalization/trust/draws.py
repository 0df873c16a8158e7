"""Networks drawn as a limit says: what a trust score looks at before any training.

Each is moved once by the course that the limit predicts for it, θ₀ + c·Jᵀw: where the real network is then not where
its linearisation is, the theory will fail.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ...data.inputs import Inputs, count, loaded, take
from ...errors import PriorscopeWarning
from ...kernels.infinite.limit import Limit
from ...network.function import cast, check_mode, outputs_of
from ...network.initialization import Initialization
from ...network.weights import layers_with_a_law

CHUNK = 512
"""Points that go through a network at once."""


@dataclass(frozen=True)
class Draw:
    """One network drawn from the limit's initialisation. norm: ‖c^(−1/2) θ₀‖ over what learns."""

    model: nn.Module
    limit: Limit
    norm: float

    def outputs(self, x: Inputs) -> Float[Tensor, "m o"]:
        """Its outputs, float64."""
        with torch.no_grad():
            return torch.cat([self._outputs(part) for part in _parts(x)]).to(torch.float64)

    def moved(self, x: Inputs, weights: Float[Tensor, "n o"]) -> "Draw":
        """The network at θ₀ + c·Jᵀw, w the weights of its outputs at x."""
        model, rates = copy.deepcopy(self.model), self.limit.law.rates
        moved = replace(self, model=model)
        learning = {name: p for name, p in model.named_parameters() if rates[name] > 0}
        slopes = {name: torch.zeros_like(p) for name, p in learning.items()}
        for part, w in zip(_parts(x), weights.split(CHUNK), strict=True):
            with torch.enable_grad():
                value = (moved._outputs(part) * w.to(next(iter(learning.values())))).sum()
            for name, slope in zip(
                learning, torch.autograd.grad(value, list(learning.values()), materialize_grads=True), strict=True
            ):
                slopes[name].add_(slope)
        with torch.no_grad():
            for name, parameter in learning.items():
                parameter.add_(slopes[name], alpha=rates[name])
        return moved

    def _outputs(self, x: Inputs) -> Tensor:
        return outputs_of(self.model, cast(x, self.model.parameters()), self.limit.readout)


def drawn(limit: Limit, number: int, seed: int) -> Iterator[Draw]:
    """So many networks of the limit's module and law; the module itself is left as it is."""
    check_mode(limit.model)
    for i in range(number):
        model = copy.deepcopy(limit.model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # parameters without a law stay as they are
            _law_of_copy(limit, model).apply_(model, seed + i)
        rates = limit.law.rates
        squares = (float(p.detach().double().square().sum()) / rates[n] for n, p in _learning(model, rates))
        yield Draw(model, limit, math.sqrt(sum(squares)))


def widths(model: nn.Module) -> tuple[int, ...]:
    """How many units each hidden layer with a law has: the length of its weight's first axis."""
    return tuple(int(layer.weight.shape[0]) for _, layer in layers_with_a_law(model))[:-1]


def _law_of_copy(limit: Limit, model: nn.Module) -> Initialization:
    """A measured law knows its layers by their weights; those of the copy have others."""
    init = limit.law.init
    if init.by_layer is None:
        return init
    pairs = zip(layers_with_a_law(limit.model), layers_with_a_law(model), strict=True)
    return replace(init, by_layer={id(new.weight): init.by_layer[id(old.weight)] for (_, old), (_, new) in pairs})


def _learning(model: nn.Module, rates: Mapping[str, float]) -> list[tuple[str, nn.Parameter]]:
    return [(name, p) for name, p in model.named_parameters() if rates[name] > 0]


def _parts(x: Inputs) -> Iterator[Inputs]:
    for first in range(0, count(x), CHUNK):
        yield loaded(take(x, slice(first, first + CHUNK)))
