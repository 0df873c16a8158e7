"""A network with an untrainable function added, so that the trained ensemble becomes the posterior of the NTK."""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from ..errors import RatesError
from ..network.derivatives import forward_product
from ..network.initialization import Initialization
from ..network.weights import layers_with_a_law

OTHER_SEEDS = 1_000_000
"""Added to a network's seed where θ* is drawn."""


class WithUntrained(nn.Module):
    """f(x; θ) + δ(x), δ(x) = J(x; θ₀) θ*; θ alone is trained.

    Args:
        network: f, at its start θ₀, of which a copy is kept.
        direction: {parameter name: θ*}.
    """

    def __init__(self, network: nn.Module, direction: Mapping[str, Tensor]):
        super().__init__()
        self.network = network
        self.names = [name for name, _ in network.named_parameters()]
        for i, (name, start) in enumerate(network.named_parameters()):
            self.register_buffer(f"start_{i}", start.detach().clone())
            self.register_buffer(f"direction_{i}", direction[name].detach().clone())

    def forward(self, x: Tensor) -> Float[Tensor, "n 1"]:
        return self.network(x) + self.untrained(x)

    def untrained(self, x: Tensor) -> Float[Tensor, "n 1"]:
        """δ(x)."""
        start, direction = (
            {name: self.get_buffer(f"{kind}_{i}") for i, name in enumerate(self.names)}
            for kind in ("start", "direction")
        )
        return forward_product(lambda values: functional_call(self.network, values, (x,)), start, direction)[1]


def with_untrained(network: nn.Module, init: Initialization, seed: int) -> WithUntrained:
    """The network f + δ whose start has the NTK as covariance, in the limit of width.

    θ* is drawn as θ₀ is, independently, with the last layer's entries 0. Given θ₀, δ is Gaussian with covariance
    Σ J c Jᵀ over all layers but the last, which tends to Θ − K: the last layer's own part of Θ is K, the nngp, which f₀
    has. f₀ and δ are uncorrelated, as θ* has mean 0. So f₀ + δ has covariance Θ, and, trained on squared loss with
    the kernel Θ, becomes a draw from the posterior of a Gaussian process with covariance Θ.

    Args:
        network: drawn by `init`, whose parameterization is "ntk" (so that the rates c are the variances).

    Source: He, Lakshminarayanan and Teh 2020 (2007.05864).
    """
    if init.parameterization != "ntk":
        cause = f"is in the parameterization {init.parameterization!r}: the rates have to be the variances"
        raise RatesError("with_untrained(init=)", cause, 'Give parameterization="ntk"')
    other = init.apply_(copy.deepcopy(network), seed + OTHER_SEEDS)
    last = list(layers_with_a_law(other))[-1][1]
    with torch.no_grad():
        for parameter in (last.weight, last.bias):
            parameter.zero_()
    return WithUntrained(network, dict(other.named_parameters()))
