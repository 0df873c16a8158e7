"""Which weights of a module have a law, how many inputs each of their outputs sums over, and how torch draws them.

A layer is a module with one `weight` and at most one `bias`; a module with several (recurrent networks, attention)
has one `Part` for each of its weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

DENSE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True, eq=False)
class Part:
    """One weight of a module that has several, by the names of its parameters; read like a layer."""

    module: nn.Module
    weight_name: str
    bias_name: str | None

    @property
    def weight(self) -> Any:
        return getattr(self.module, self.weight_name)

    @property
    def bias(self) -> Any:
        return None if self.bias_name is None else getattr(self.module, self.bias_name)


Layer = nn.Module | Part


class TorchDefault(NamedTuple):
    """The variances that torch draws with, as multiples of 1/3: σ_w², and σ_b²."""

    weight: float
    bias: float


def fan_in(layer: Any) -> int:
    """The number of inputs that one output of a layer sums over.

    A transposed convolution counts its input channels times its kernel, as if every output saw the whole kernel; an
    embedding reads one row.
    """
    weight: Any = layer.weight
    if isinstance(layer, nn.Embedding):
        return 1
    if isinstance(layer, TRANSPOSED):
        return weight.shape[0] // layer.groups * prod(weight.shape[2:])
    return weight[0].numel()


def torch_default(layer: Any) -> TorchDefault:
    """What torch's own reset_parameters draws with."""
    inputs = fan_in(layer)
    if isinstance(layer, nn.Embedding):
        return TorchDefault(3.0, 0.0)
    if isinstance(layer, TRANSPOSED):
        taken: Any = layer.weight  # torch takes the outputs for the inputs here
        return TorchDefault(inputs / taken[0].numel(), 1 / taken[0].numel())
    if isinstance(layer, Part) and isinstance(layer.module, RECURRENT):
        hidden: Any = layer.module.hidden_size
        return TorchDefault(inputs / hidden, 1 / hidden)
    if isinstance(layer, Part):
        return TorchDefault(6 * inputs / sum(layer.weight.shape), 0.0)  # Glorot's variance, 2/(inputs + outputs)
    if isinstance(layer, NonDynamicallyQuantizableLinear):
        return TorchDefault(1.0, 0.0)
    return TorchDefault(1.0, 1 / inputs)


def layers_with_a_law(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """(path, layer or Part) for each weight that has a law, once each, in order."""
    for path, module in model.named_modules():
        if isinstance(module, (*DENSE, *TRANSPOSED, nn.Embedding)):
            yield path, module
        elif isinstance(module, (*RECURRENT, nn.MultiheadAttention)):
            for part in _parts(module):
                yield path, part


def random_entries(layer: Any) -> Tensor:
    """The entries of a layer's weight that are random: of an embedding all rows but the padding's, which is 0."""
    weight: Any = layer.weight
    if isinstance(layer, nn.Embedding) and layer.padding_idx is not None:
        return weight[[row for row in range(len(weight)) if row != layer.padding_idx]]
    return weight


def _parts(module: nn.Module) -> Iterator[Part]:
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, nn.MultiheadAttention):
        bias = "in_proj_bias" if "in_proj_bias" in own else None
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if name in own:
                yield Part(module, name, bias)
                bias = None  # one bias serves all projections
        return
    for name in own:
        if name.startswith("weight"):
            bias = name.replace("weight", "bias")
            yield Part(module, name, bias if bias in own else None)
