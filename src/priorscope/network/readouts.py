"""Named read-outs: one scalar from a network's outputs, whose gradient then stands for the network.

The kernel of a scalar read-out s(f) is ∇s(f(x))ᵀ Θ(x, x') ∇s(f(x')), so a read-out says which outputs count at which
input. `trace` takes none of them out: the mean over all outputs, which costs as many kernels as there are outputs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ModelError
from .function import READOUT_REMEDY, Readout


@dataclass(frozen=True)
class NamedReadout:
    """name, formula and meaning: in words for a page. function: from a network's outputs (n, o) to (n,), or None."""

    name: str
    formula: str
    meaning: str
    function: Readout | None


MEANINGS = {
    "logsumexp": (
        "log Σ_a exp f_a",
        "the logits weighed by the probabilities that the network itself gives the classes: inputs are alike when "
        "learning about the classes that one is taken for moves those that the other is taken for",
    ),
    "sum": ("Σ_a f_a", "all outputs with the weight 1, whatever the input"),
    "energy": (
        "½ Σ_a f_a²",
        "each output weighed by its own value: the kernel's part along the output vectors themselves",
    ),
    "projection": (
        "Σ_a u_a f_a",
        "the outputs along one random direction u of length 1, the same at all inputs; its mean over directions is "
        "the trace kernel",
    ),
    "trace": ("f_a, mean over a", "the mean over all outputs: the trace kernel"),
}


def named_readout(name: str, seed: int = 0) -> NamedReadout:
    """The read-out of that name; see MEANINGS.

    Args:
        seed: draws the direction of `projection`.

    Raises:
        ModelError: an unknown name.

    The direction has length 1, so that the read-out of one output is that output, up to its sign:

    >>> u = named_readout("projection", seed=3).function
    >>> u(torch.tensor([[2.0]])).abs().tolist()
    [2.0]
    """
    if name not in MEANINGS:
        raise ModelError(f"the read-out {name!r}", "is not known", f"Choose one of {', '.join(MEANINGS)}")
    formula, meaning = MEANINGS[name]
    functions: dict[str, Callable[[Tensor], Tensor] | None] = {
        "logsumexp": lambda out: out.logsumexp(1),
        "sum": lambda out: out.sum(1),
        "energy": lambda out: out.square().sum(1) / 2,
        "projection": lambda out: out @ direction(out.shape[1], seed).to(out),
        "trace": None,
    }
    function = functions[name]
    if function is None:
        return NamedReadout(name, formula, meaning, None)
    return NamedReadout(name, formula, meaning, lambda out: function(_rows(out)))


def direction(outputs: int, seed: int) -> Float[Tensor, " o"]:
    """A random direction of length 1, uniform on the sphere."""
    # By numpy: a read-out runs under vmap too, where torch draws no random numbers.
    u = torch.from_numpy(np.random.default_rng(seed).standard_normal(outputs))
    return u / u.norm()


def _rows(out: Any) -> Float[Tensor, "n o"]:
    if not isinstance(out, Tensor):
        raise ModelError("the model's output", f"is a {type(out).__name__}", READOUT_REMEDY)
    return out.reshape(-1, 1) if out.ndim < 2 else out.flatten(1)
