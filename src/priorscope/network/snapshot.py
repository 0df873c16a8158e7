"""`Snapshot`: a module with the values and modes of one moment, whatever becomes of the live module.

It copies values and shares the module: work happens while the values are put into the module, for a moment.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..data.inputs import Inputs, count, equal
from ..errors import ModelError
from .function import Readout, as_rows, call, cast, check_module, differentiable_attention, outputs_of


class Snapshot:
    """A module with the values that its parameters and buffers have now.

    A later change of the live module's values, modes or `requires_grad` doesn't change the snapshot. Work with it
    happens inside `with snapshot.installed():`, which puts its values into the shared module and restores them always.

    Args:
        model: the module. It is shared, not copied.
        readout: what makes the outputs from whatever the module returns; by default they are the same.

    `values` is {parameter name: detached copy}, in the order of `named_parameters()`.
    """

    def __init__(self, model: Any, readout: Readout | None = None):
        self.model = check_module(model)
        self.readout = readout
        self._parameters = dict(self.model.named_parameters())
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.learnable = {name for name, p in self._parameters.items() if p.requires_grad}
        self._modes = [(module, module.training) for module in self.model.modules()]
        copies: dict[int, Tensor] = {}
        self._buffers = [
            (module, name, copies.setdefault(id(buffer), buffer.detach().clone()))
            for module in self.model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        # Once per module that holds it: a tied parameter has several slots.
        self._slots = [
            (f"{path}.{name}" if path else name, module, name, p)
            for path, module in self.model.named_modules()
            for name, p in module._parameters.items()
            if p is not None
        ]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating parameter."""
        return next((v.dtype for v in self.values.values() if v.is_floating_point()), torch.get_default_dtype())

    def parameter(self, name: str) -> nn.Parameter:
        """The live parameter, which holds the snapshot's values inside `installed`."""
        return self._parameters[name]

    def cast(self, x: Inputs) -> Inputs:
        """x as the snapshot takes it: detached, on its device, floating tensors in its dtype."""
        return cast(x, self.values.values())

    @contextmanager
    def installed(self, learning: Collection[str] | None = None) -> Iterator[None]:
        """The shared module with the snapshot's values and modes; its own come back at the end, whatever happens.

        Args:
            learning: parameters that are differentiated meanwhile; by default all that were when the snapshot was made.

        Fused attention is off meanwhile: it has no derivatives, or none that run under vmap.
        """
        for slot, module, name, parameter in self._slots:
            if module._parameters.get(name) is not parameter:
                raise ModelError(f"`{slot}`", "was replaced by another parameter since", "Take a new snapshot")
        with ExitStack() as stack:
            stack.enter_context(differentiable_attention())
            for name, parameter in self._parameters.items():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in (self.learnable if learning is None else learning))
                if not equal(parameter.data, self.values[name]):
                    stack.callback(setattr, parameter, "data", parameter.data)
                    parameter.data = self.values[name]
            fresh: dict[int, Tensor] = {}
            for module, name, value in self._buffers:
                # A copy: what the forward pass writes into a buffer must not reach the snapshot.
                stack.callback(module._buffers.__setitem__, name, module._buffers[name])
                module._buffers[name] = fresh.setdefault(id(value), value.clone())
            for module, training in self._modes:
                stack.callback(setattr, module, "training", module.training)
                module.training = training
            yield

    def outputs(self, x: Inputs) -> Float[Tensor, "n o"]:
        """The outputs of a batch by the module itself (inside `installed`), differentiable in its parameters.

        The module gets a copy of x: it may change its input in place.
        """
        own = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, x)
        return outputs_of(self.model, own, self.readout)

    def moved(self, values: Mapping[str, Tensor], x: Inputs) -> Float[Tensor, "n o"]:
        """The outputs of a batch where parameters named in `values` have those, and all others the snapshot's.

        It is a function in the sense of torch.func, to be used inside `installed`.
        """
        returned = call(self.model, {**self.values, **values}, x)
        return as_rows(returned if self.readout is None else self.readout(returned), count(x))

    def single(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """(o,): the same at one point, x without the first axis."""
        return self.moved(values, tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, x))[0]
