"""What a network represents its inputs by: the features that its last linear layer reads, or its outputs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.inputs import Inputs, check_inputs, count, take
from ..errors import ModelError
from .function import as_rows, cast, check_mode, check_module, outputs_of, place_of

BATCH = 16


@torch.no_grad()
def output_features(model: nn.Module, x: Inputs) -> Float[Tensor, "n o"]:
    """The outputs themselves, in batches: for networks that are trained to embed.

    Args:
        x: n points.
    """
    x = _checked(model, x)
    return torch.cat([outputs_of(model, take(x, part)) for part in _batches(x)])


@torch.no_grad()
def penultimate_features(model: nn.Module, x: Inputs) -> Float[Tensor, "n d"]:
    """What the nn.Linear that makes the outputs reads: f(x) = W φ(x) + b gives φ(x).

    Args:
        model: a network that ends in an nn.Linear.
        x: n points.

    Returns:
        (n, d).

    Raises:
        ModelError: the outputs are not those of an nn.Linear.

    >>> head, x = nn.Linear(3, 2), torch.randn(5, 4)
    >>> features = penultimate_features(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), head), x)
    >>> features.shape
    torch.Size([5, 3])
    """
    x = _checked(model, x)
    last: list[tuple[Tensor, Tensor]] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...], out: Tensor) -> None:
        last[:] = [(arguments[0], out)]

    found = []
    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Linear)]
    try:
        for part in _batches(x):
            last.clear()
            points = take(x, part)
            returned = outputs_of(model, points)
            n = count(points)
            if not last or not torch.equal(as_rows(last[0][1], n), returned):
                raise ModelError(
                    place_of(model),
                    "does not end in an nn.Linear, so it has no features before one",
                    'Give features="output", or a function (model, x) -> (n, d)',
                )
            found.append(as_rows(last[0][0], n))
    finally:
        for handle in handles:
            handle.remove()
    return torch.cat(found)


def _checked(model: nn.Module, x: Inputs) -> Inputs:
    check_mode(check_module(model))
    return cast(check_inputs(x), model.parameters())


def _batches(x: Inputs) -> list[slice]:
    return [slice(i, i + BATCH) for i in range(0, count(x), BATCH)]
