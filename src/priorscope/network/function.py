"""The user's nn.Module as a function of its parameters and inputs: arguments, safe calls, outputs, and its mode.

torch.func alone is not safe: by default `functional_call` corrupts a module that is held twice, and ties what it should
not. Here every module is called with its own parameters, by object.

How inputs become arguments: a tensor is the one argument, a tuple or list are positional arguments, a dictionary
keyword arguments; tensors in any depth below have the points on their first axis.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from ..data.inputs import Inputs, count, leaves, loaded, take
from ..errors import DataError, ModelError, NotExactError, PriorscopeError, brief

Readout = Callable[[Any], Tensor]

READOUT_REMEDY = (
    "Let the module return a tensor whose first axis counts the points, or give readout=lambda out: ... where it is "
    "taken"
)


def arguments(x: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and the keyword arguments that inputs become."""
    if isinstance(x, Mapping):
        return (), dict(x)
    return (tuple(x) if isinstance(x, (tuple, list)) else (x,)), {}


def cast(x: Inputs, values: Iterable[Tensor], copy: bool = False) -> Inputs:
    """x, detached, on the device of a model's values, its floating tensors in their dtype; integers stay as they are.

    Arrays stay as they are too, so that none is read whole: cast what `take` or `loaded` has made of them.

    Args:
        values: the model's parameters; the first floating one counts. Without any, x keeps dtype and device.
        copy: whether the tensors are copies in any case.
    """
    like = next((value for value in values if value.is_floating_point()), None)

    def one(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        device = leaf.device if like is None else like.device
        dtype = leaf.dtype if like is None or not leaf.is_floating_point() else like.dtype
        return leaf.detach().to(device, dtype, copy=copy)

    return tree_map(one, x)


def call(model: nn.Module, values: Mapping[str, Tensor], x: Inputs) -> Any:
    """What the module returns at x with other values of some of its parameters and buffers.

    It is a function in the sense of torch.func.

    Args:
        values: {name: tensor}, by the names that `named_parameters()` and `named_buffers()` give. A tied tensor is
            replaced wherever it is used.
    """
    return call_with(model, values, *arguments(x))


def call_with(
    model: nn.Module, values: Mapping[str, Tensor], positional: tuple[Any, ...], keyword: dict[str, Any]
) -> Any:
    """The same, for arguments as they are."""
    # Each module's own tensors, once: functional_call's own tying corrupts a module that is held under two names.
    own = {path: values[name] for path, name in _names_of_own_tensors(model) if name in values}
    return functional_call(model, own, positional, keyword, tie_weights=False)


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


def outputs_of(
    model: nn.Module, x: Inputs, readout: Readout | None = None, name: str = "inputs"
) -> Float[Tensor, "n o"]:
    """The outputs of a batch by the module itself, differentiable in its parameters.

    Args:
        readout: what makes the outputs from whatever the module returns; by default they are the same.
        name: what the inputs are called in an error.

    Raises:
        ModelError: the module does not run on x, or its outputs are no real tensor with the points first.
    """
    positional, keyword = arguments(x)
    try:
        returned = model(*positional, **keyword)
    except PriorscopeError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves(x))
        raise ModelError(
            place_of(model),
            f"does not run on {name} of shape {shapes} ({type(error).__name__}: {error})",
            "Give inputs that model(x) takes: a tuple for several arguments, a dictionary for keyword arguments",
        ) from error
    if readout is not None:
        try:
            returned = readout(returned)
        except PriorscopeError:
            raise
        except Exception as error:
            shown = f"tensor {tuple(returned.shape)}" if isinstance(returned, Tensor) else type(returned).__name__
            cause = f"fails on what the model returns, a {shown} ({brief(error)})"
            raise ModelError("the readout", cause, "Give a function that makes a tensor (n, ...) of it") from error
    return as_rows(returned, count(x))


def as_rows(returned: Any, points: int) -> Float[Tensor, "n o"]:
    """What a module (or a read-out) returned for so many points, as outputs (n, o)."""
    place = "the model's output"
    if not isinstance(returned, Tensor):
        raise ModelError(place, f"is a {type(returned).__name__}", READOUT_REMEDY)
    if not returned.is_floating_point():
        raise ModelError(place, f"has dtype {returned.dtype}", "Let the model, or its readout=, give real outputs")
    if returned.numel() == 0:
        raise ModelError(place, f"has no entries, shape {tuple(returned.shape)}", READOUT_REMEDY)
    if points == 1:
        return returned.reshape(1, -1)  # a `squeeze()` in the model may have dropped the axis of one point
    if returned.ndim == 0 or returned.shape[0] != points:
        raise ModelError(place, f"has shape {tuple(returned.shape)} for {points} points", READOUT_REMEDY)
    return returned.reshape(points, -1)


@torch.no_grad()
def evaluate(model: nn.Module, x: Inputs) -> Float[Tensor, "n o"]:
    """The outputs at x of the module as it is, float64, computed in its own dtype; neither x nor a mode is touched.

    Raises:
        ModelError: the module does not run on x, or is in the wrong mode.
    """
    check_mode(model)
    return outputs_of(model, cast(loaded(x), model.parameters(), copy=True)).to(torch.float64)


def initial_function(model: nn.Module, x: Inputs, outputs: int, name: str = "start") -> Float[Tensor, "m o"]:
    """The network's outputs at x, float64: as many as y has."""
    values = evaluate(model, x)
    if values.shape[1] != outputs:
        raise DataError(name, f"has {values.shape[1]} outputs, y asks for {outputs}", "Make them equal")
    return values


def class_name(module: nn.Module) -> str:
    """`nn.Linear` for torch's own classes, the bare class name for others."""
    kind = type(module)
    return f"nn.{kind.__name__}" if kind.__module__.startswith("torch.nn.modules") else kind.__name__


def place_of(model: nn.Module) -> str:
    """How an error names a whole model."""
    return f"the model ({class_name(model)})"


def check_module(model: Any, name: str = "model") -> nn.Module:
    """The module itself; a ModelError where it is none, or has parameters without shapes."""
    if not isinstance(model, nn.Module):
        raise ModelError(name, f"is a {type(model).__name__}", "Give an nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(name, "is TorchScript, whose parameters are not Python's", "Give the nn.Module it was made of")
    for path, parameter in model.named_parameters():
        if isinstance(parameter, nn.UninitializedParameter):
            raise ModelError(f"`{path}`", "has no shape yet (a lazy module)", "Run the model once on a batch first")
    return model


def check_mode(model: nn.Module) -> None:
    """Raises NotExactError, naming the module, where outputs would be random or depend on the batch."""
    for path, module in model.named_modules():
        place = f"`{path}` ({class_name(module)})" if path else place_of(module)
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
            raise NotExactError(place, "is in training mode: its outputs are random", "Call model.eval()")


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return module.dropout > 0
    return isinstance(module, nn.RReLU)


@contextmanager
def differentiable_attention() -> Iterator[None]:
    """Attention by plain operations: the fused ones have no forward derivatives, and know no stacked weights."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def pair_of_points(x: Inputs) -> Inputs:
    """Two points of x: the first and the last; of a single point, itself and its mirror image."""
    if count(x) > 1:
        return take(x, [0, -1])
    x = loaded(x)

    def mirrored(leaf: Any) -> Any:
        return torch.cat([leaf, leaf.flip(tuple(range(1, leaf.ndim)))]) if isinstance(leaf, Tensor) else leaf

    return tree_map(mirrored, x)
