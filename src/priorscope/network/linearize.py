"""The first-order Taylor expansion of a network in its parameters, as a module that trains like the network itself.

    f_lin(x; θ) = f(x; θ₀) + J(x)(θ − θ₀),   J = ∂f/∂θ at θ₀

`remainder` measures what the expansion leaves out: ‖f − f_lin‖, of the order of the square of the step.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..data.inputs import Inputs, check_inputs, count, loaded
from ..errors import DataError, ModelError
from ..results import Result
from .derivatives import forward_product
from .function import arguments, as_rows, call, call_with, cast, check_mode, differentiable_attention

POINT = "_expansion_point"


def linearize(model: nn.Module) -> "Linearized":
    """The first-order Taylor expansion of a network around its present parameters.

    f_lin(x; θ) = f(x; θ₀) + J(x)(θ − θ₀)

    The module has the network's parameter names, shapes and ties, starts at θ₀, and trains with any optimizer.
    Its layers stay in the mode (train or eval) that they are in now. The model itself is not touched.

    Args:
        model: any module.

    Returns:
        A module; its outputs have the shape of the model's.

    Raises:
        ModelError: BatchNorm or dropout in training mode; when called, a layer without a forward derivative.

    Source: Lee et al. 2019 (1902.06720).

    >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    >>> lin, x = linearize(net), torch.randn(3, 2)
    >>> bool(torch.allclose(lin(x), net(x)))
    True
    """
    return Linearized(model)


class Linearized(nn.Module):
    """f(x; θ₀) + J(x)(θ − θ₀): what `linearize` returns.

    `state_dict()` holds θ and, under `_expansion_point`, θ₀. The network's own state_dict loads too: it sets θ alone.
    """

    _network: nn.Module

    def __init__(self, model: nn.Module):
        super().__init__()
        check_mode(model)
        network = copy.deepcopy(model)
        # The network's tensors and layers are held directly, so that all names are its own. The network itself is
        # kept beside them, unregistered; the two share their dictionaries, so that what replaces one replaces both.
        self.__dict__["_network"] = network
        for shared in ("_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[shared] = network.__dict__[shared]
        self._modules.update(network._modules)
        self.training = network.training
        named = {name: p for name, p in network.named_parameters() if p.is_floating_point()}
        self._names = tuple(named)
        point = nn.Module()
        for number, parameter in enumerate(named.values()):
            point.register_buffer(str(number), parameter.detach().clone())
        self._modules[POINT] = point

    @property
    def expansion_point(self) -> dict[str, Tensor]:
        """θ₀, {parameter name: tensor}."""
        return dict(zip(self._names, self._modules[POINT]._buffers.values(), strict=True))  # type: ignore

    def forward(self, *positional: Any, **keyword: Any) -> Any:
        start = self.expansion_point
        now = {name: parameter for name, parameter in self._network.named_parameters() if name in start}
        value, change = expand(
            self._network, start, {name: now[name] - start[name] for name in start}, positional, keyword
        )
        return tree_map(torch.add, value, change)

    def train(self, mode: bool = True) -> "Linearized":
        """Marks this module; the layers stay in the mode in which they were expanded."""
        self.training = mode
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        if not any(key.startswith(f"{prefix}{POINT}.") for key in state_dict):
            own = self._modules[POINT]._buffers  # type: ignore[union-attr]
            state_dict.update({f"{prefix}{POINT}.{name}": tensor for name, tensor in own.items()})
        super()._load_from_state_dict(state_dict, prefix, *args)


def expand(
    model: nn.Module,
    point: Mapping[str, Tensor],
    change: Mapping[str, Tensor],
    positional: tuple[Any, ...],
    keyword: dict[str, Any],
) -> tuple[Any, Any]:
    """(f(x; θ₀), J(x) Δ) for θ₀ = point and Δ = change, both by parameter name, and x as the module's arguments."""

    def moved(values: dict[str, Tensor]) -> Any:
        return call_with(model, values, positional, keyword)

    try:
        with differentiable_attention():
            return forward_product(moved, point, change)
    except (RuntimeError, NotImplementedError) as error:
        raise ModelError(
            f"linearize({type(model).__name__})",
            f"its forward derivative could not be taken ({str(error).splitlines()[0]})",
            "Check that the model runs on x, and replace layers that work in place on their input or have no "
            "forward derivative",
        ) from error


def slope_along(model: nn.Module, x: Inputs, names: Sequence[str]) -> Float[Tensor, "n o"]:
    """J(x) θ over the named parameters, at the network's own θ: how its outputs move as these grow as a whole.

    Args:
        model: any module.
        x: n inputs.
        names: of `named_parameters()`.

    Returns:
        (n, o), float64.

    Raises:
        ModelError: a module in the wrong mode, or without a forward derivative.

    >>> net, x = nn.Linear(2, 1, bias=False), torch.randn(3, 2)
    >>> bool(torch.allclose(slope_along(net, x, ["weight"]).float(), net(x)))  # linear in its weights
    True
    """
    check_mode(model)
    point = {name: p.detach() for name, p in model.named_parameters() if p.is_floating_point()}
    change = {name: p if name in names else torch.zeros_like(p) for name, p in point.items()}
    positional, keyword = arguments(cast(loaded(x), model.parameters(), copy=True))
    _, slope = expand(model, point, change, positional, keyword)
    return as_rows(slope, count(x)).detach().to(torch.float64)


@dataclass(frozen=True)
class Remainder(Result):
    """What the linearisation leaves out along one direction Δ.

    steps: (k,), the sizes s. norms: (k,), ‖f(θ₀ + sΔ) − f_lin(θ₀ + sΔ)‖ over all points and outputs.
    order: the slope of log norms against log steps; NaN where fewer than two norms exceed rounding.
    """

    steps: Float[Tensor, " k"]
    norms: Float[Tensor, " k"]
    order: float


def remainder(
    model: nn.Module,
    direction: Mapping[str, Tensor],
    x: Inputs,
    steps: Sequence[float] | Tensor = (1e-1, 1e-2, 1e-3, 1e-4),
) -> Remainder:
    """How far a network is from its linearisation, at several step sizes along one direction.

    r(s) = ‖f(θ₀ + sΔ) − f(θ₀) − s J Δ‖ = O(s²)

    Args:
        direction: Δ, {parameter name: tensor of its shape}; parameters that are not named do not move.
        x: the points.
        steps: (k,), step sizes s > 0.

    Returns:
        Remainder, computed in float64, with the fitted order: 2 in general.

    Raises:
        DataError: names or shapes that are not the model's; steps that are not positive.
        ModelError: BatchNorm or dropout in training mode; no forward derivative.
    """
    check_mode(model)
    check_inputs(x)
    sizes = torch.as_tensor(steps, dtype=torch.float64).flatten()
    if len(sizes) == 0 or not bool((sizes > 0).all()) or not bool(torch.isfinite(sizes).all()):
        raise DataError("steps", f"are {sizes.tolist()}", "Give finite sizes greater than 0")
    double = copy.deepcopy(model).to(torch.float64)
    start = {name: p.detach() for name, p in double.named_parameters()}
    for name, change in direction.items():
        if name not in start or change.shape != start[name].shape:
            has = f"{tuple(start[name].shape)}" if name in start else "no such parameter"
            cause = f"has shape {tuple(change.shape)}, the model {has}"
            raise DataError(f"direction[{name!r}]", cause, "Give {parameter name: tensor of its shape}")
    point = {name: start[name] for name in direction}
    delta = {name: change.detach().to(start[name]) for name, change in direction.items()}
    inputs = cast(loaded(x), double.parameters())
    with torch.no_grad():
        value, slope = expand(double, point, delta, *arguments(inputs))
        norms = torch.stack(
            [
                (call(double, {n: point[n] + s * delta[n] for n in point}, inputs) - value - s * slope).norm()
                for s in sizes.tolist()
            ]
        )
    return Remainder(sizes, norms, _order(sizes, norms, 1e3 * torch.finfo(torch.float64).eps * float(value.norm())))


def _order(steps: Tensor, norms: Tensor, rounding: float) -> float:
    """The least-squares slope of log norms against log steps, of the norms above rounding."""
    clear = norms > rounding
    if int(clear.sum()) < 2:
        return math.nan
    a, b = steps[clear].log(), norms[clear].log()
    a = a - a.mean()
    return float((a * b).sum() / a.square().sum())
