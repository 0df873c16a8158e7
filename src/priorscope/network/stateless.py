"""A module called with other values of its parameters and buffers: safe for shared modules and tied weights.

Also what every user of such calls must refuse: modules whose output is random, or depends on the rest of the batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..data.inputs import Inputs
from ..errors import ModelError


def call(model: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Any:
    """model(x) with other values of some of its parameters and buffers.

    Args:
        values: {name: tensor}, by the names that `named_parameters()` and `named_buffers()` give. A tied tensor is
            replaced wherever it is used.
    """
    # Each module's own tensors, once: functional_call's own tying corrupts a module that is held under two names.
    own = {path: values[name] for path, name in _names_of_own_tensors(model) if name in values}
    return functional_call(model, own, (x,), tie_weights=False)


def _names_of_own_tensors(model: nn.Module) -> Iterator[tuple[str, str]]:
    """(path to one module's own tensor, its name), for every tensor that every module holds."""
    names: dict[int, str] = {}
    for prefix, module in model.named_modules():
        for own, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is not None:
                path = f"{prefix}.{own}" if prefix else own
                yield path, names.setdefault(id(tensor), path)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """{name: tensor} of every parameter and buffer, detached, each tied one once."""
    named = (*model.named_parameters(), *model.named_buffers())
    return {name: tensor.detach() for name, tensor in named}


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Attention by plain operations: the fused ones know neither forward derivatives nor stacked weights."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def check_mode(model: nn.Module) -> None:
    """Raises ModelError, naming the module, where an output would be random or depend on the rest of the batch."""
    for path, module in model.named_modules():
        place = f"`{path or 'the model'}`, nn.{type(module).__name__}"
        if isinstance(module, _BatchNorm):
            if module.running_mean is None:
                raise ModelError(place, "keeps no running statistics, so it mixes the batch", "Use nn.GroupNorm")
            if module.training:
                raise ModelError(place, "is in training mode, where it mixes the batch", "Call model.eval() first")
        elif module.training and _drops(module):
            raise ModelError(place, "is in training mode, where its output is random", "Call model.eval() first")


def _drops(module: nn.Module) -> bool:
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)
