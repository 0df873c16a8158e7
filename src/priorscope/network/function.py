"""The user's nn.Module as a function of its parameters: safe calls with other values, read-outs, one point or many.

torch.func alone is not safe: by default `functional_call` corrupts a module that is held twice, and ties what it should
not. Here every module is called with its own parameters, by object. A `Snapshot` copies values and shares the module.

How inputs become arguments: a tensor is the one argument, a tuple or list are positional arguments, a dictionary
keyword arguments; tensors in any depth below have the points on their first axis.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from ..data.inputs import Inputs, count, leaves, take
from ..errors import ModelError, NotExactError

Readout = Callable[[Any], Tensor]

READOUT_REMEDY = "Give readout=lambda out: ..., a tensor whose first axis counts the points"


def check_mode(model: nn.Module) -> None:
    """Raises NotExactError, naming the module, where outputs would be random or depend on the batch."""
    for path, module in model.named_modules():
        place = f"`{path}` (nn.{type(module).__name__})" if path else f"the model (nn.{type(module).__name__})"
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.training:
                raise NotExactError(place, "is in training mode: its outputs depend on the batch", "Call model.eval()")
            if module.running_mean is None:
                raise NotExactError(
                    place,
                    "keeps no running statistics: its outputs depend on the batch, in .eval() too",
                    "Use track_running_stats=True, or a norm of single points, and call model.eval()",
                )
        elif module.training and _is_random(module):
            raise NotExactError(place, "drops out at random in training mode", "Call model.eval()")


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)


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
        if not isinstance(model, nn.Module):
            raise ModelError("model", f"is a {type(model).__name__}", "Give an nn.Module")
        for name, parameter in model.named_parameters():
            if isinstance(parameter, nn.UninitializedParameter):
                raise ModelError(f"`{name}`", "has no shape yet (a lazy module)", "Run the model once on a batch first")
        self.model: nn.Module = model
        self.readout = readout
        self._parameters = dict(model.named_parameters())
        self.values = {name: p.detach().clone() for name, p in self._parameters.items()}
        self.learnable = {name for name, p in self._parameters.items() if p.requires_grad}
        self._modes = [(module, module.training) for module in model.modules()]
        copies: dict[int, Tensor] = {}
        self._buffers = [
            (module, name, copies.setdefault(id(buffer), buffer.detach().clone()))
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        # Each module's own parameters, once per module that holds them: a tied one has several slots.
        canonical = {id(p): name for name, p in self._parameters.items()}
        self._slots = [
            (f"{path}.{name}" if path else name, module, name, canonical[id(p)])
            for path, module in model.named_modules()
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
        """x with its floating tensors in the model's dtype, detached; integers are left as they are."""

        def one(leaf: Any) -> Any:
            if not isinstance(leaf, Tensor):
                return leaf
            return leaf.detach().to(self.dtype) if leaf.is_floating_point() else leaf.detach()

        return tree_map(one, x)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """The shared module with the snapshot's values and modes; its own come back at the end, whatever happens.

        Fused attention is off meanwhile: it has no derivatives, or none that run under vmap.
        """
        for slot, module, name, canonical in self._slots:
            if module._parameters.get(name) is not self._parameters[canonical]:
                raise ModelError(f"`{slot}`", "was replaced by another parameter since", "Take a new snapshot")
        with ExitStack() as stack:
            fast = torch.backends.mha.get_fastpath_enabled()
            stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
            torch.backends.mha.set_fastpath_enabled(False)
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            for name, parameter in self._parameters.items():
                stack.callback(parameter.requires_grad_, parameter.requires_grad)
                parameter.requires_grad_(name in self.learnable)
                if not _equal(parameter.data, self.values[name]):
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
        """The outputs of a batch by the module itself (inside `installed`), differentiable in its parameters."""
        points = count(x)
        try:
            out = self._read(self.model(*_positional(x), **_keyword(x)))
        except ModelError:
            raise
        except Exception as error:
            shapes = [tuple(leaf.shape) for leaf in leaves(x)]
            raise ModelError(
                "the model",
                f"does not run on inputs of shape {', '.join(map(str, shapes))} ({type(error).__name__}: {error})",
                "Give inputs that model(x) takes: a tuple for several arguments, a dictionary for keyword arguments",
            ) from error
        if points == 1:
            return out.reshape(1, -1)  # a `squeeze()` in the model may have dropped the axis of one point
        if out.ndim == 0 or out.shape[0] != points:
            raise ModelError("the model's output", f"has shape {tuple(out.shape)} for {points} points", READOUT_REMEDY)
        return out.reshape(points, -1)

    def single(self, values: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """(o,): the outputs at one point, x without the first axis, where parameters named in `values` have those.

        It is a function in the sense of torch.func, to be used inside `installed`.
        """
        batch = tree_map(lambda leaf: leaf[None] if isinstance(leaf, Tensor) else leaf, x)
        own = {slot: values.get(name, self.values[name]) for slot, _, _, name in self._slots}
        out = functional_call(self.model, own, _positional(batch), _keyword(batch), tie_weights=False)
        return self._read(out).reshape(-1)

    def _read(self, out: Any) -> Tensor:
        if self.readout is not None:
            out = self.readout(out)
        if not isinstance(out, Tensor):
            raise ModelError("the model's output", f"is a {type(out).__name__}", READOUT_REMEDY)
        if not out.is_floating_point():
            raise ModelError("the model's output", f"has dtype {out.dtype}", "Give a readout= with real outputs")
        return out


def pair_of_points(x: Inputs) -> Inputs:
    """Two points of x: the first and the last; of a single point, itself and its mirror image."""
    if count(x) > 1:
        return take(x, [0, -1])

    def mirrored(leaf: Any) -> Any:
        return torch.cat([leaf, leaf.flip(tuple(range(1, leaf.ndim)))]) if isinstance(leaf, Tensor) else leaf

    return tree_map(mirrored, x)


def _positional(x: Inputs) -> tuple[Any, ...]:
    if isinstance(x, Mapping):
        return ()
    return tuple(x) if isinstance(x, (tuple, list)) else (x,)


def _keyword(x: Inputs) -> dict[str, Any]:
    return dict(x) if isinstance(x, Mapping) else {}


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.device == b.device and torch.equal(a, b)
