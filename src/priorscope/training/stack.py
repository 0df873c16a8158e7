"""Many networks of one shape as one: their weights stacked along a first axis, called and trained together."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..data.inputs import Inputs, count
from ..errors import ModelError, PriorscopeError
from ..network.function import as_rows, call, differentiable_attention, tensors
from .problem import gradients
from .training import Training


class Stack:
    """s networks of one shape, trained together by full-batch SGD; it forgets those that have ended.

    Args:
        template: one of the networks; its code is run, its values are not used.
        networks: {name: tensor} of each network's parameters and buffers.
        rates: {parameter name: c}; parameters with c = 0 are left alone.
    """

    def __init__(
        self, template: nn.Module, networks: Iterable[dict[str, Tensor]], rates: dict[str, float], training: Training
    ):
        self.template, self.training = template, training
        everything = {name: torch.stack(values) for name, values in _columns(networks).items()}
        self.trained = {name: everything.pop(name) for name in list(everything) if rates.get(name, 0) > 0}
        self.fixed = everything
        self.rates = rates
        self.velocity: dict[str, Tensor] = {}
        decays_to_start = training.weight_decay > 0 and training.decay_to == "start"
        self.target = {name: p.clone() for name, p in self.trained.items()} if decays_to_start else {}
        self._watch()

    @property
    def size(self) -> int:
        return len(next(iter(self.trained.values())))

    def _watch(self) -> None:
        for parameter in self.trained.values():
            parameter.requires_grad_()

    def __call__(self, x: Inputs) -> Float[Tensor, "s n o"]:
        """The outputs of all networks."""
        points, place = count(x), _place(self.template)

        def one(values: dict[str, Tensor]) -> Tensor:
            return as_rows(call(self.template, values, x), points)

        try:
            with differentiable_attention():
                return torch.vmap(one)({**self.trained, **self.fixed})
        except PriorscopeError:
            raise
        except (RuntimeError, NotImplementedError, ValueError) as error:
            cause = f"cannot be stacked by torch.vmap ({str(error).splitlines()[0]})"
            raise ModelError(place, cause, "Train the networks one by one: ps.train in a loop") from error

    def descend(self, losses: Float[Tensor, " s"], step: int) -> None:
        """One step of every network: θ ← θ − ηₖ (c·g + λ (θ − target)), with momentum."""
        # The networks share no weight: the gradient of the sum holds each network's own.
        slopes = gradients(losses.sum(), list(self.trained.values()), _place(self.template))
        with torch.no_grad():
            for (name, parameter), gradient in zip(self.trained.items(), slopes, strict=True):
                self._move(name, parameter, gradient, self.training.rate_at(step))

    def _move(self, name: str, parameter: Tensor, gradient: Tensor, eta: float) -> None:
        rate, beta = self.rates[name], self.training.momentum
        if self.training.weight_decay:
            # η·c multiplies all of it below: the quotient keeps the decay free of c.
            strength = self.training.weight_decay / rate
            gradient = gradient.add(parameter, alpha=strength)
            if name in self.target:
                gradient.add_(self.target[name], alpha=-strength)
        if beta:
            if name in self.velocity:
                self.velocity[name].mul_(beta).add_(gradient)
            else:
                self.velocity[name] = gradient.clone()
            velocity = self.velocity[name]
            gradient = gradient.add(velocity, alpha=beta) if self.training.nesterov else velocity
        parameter.add_(gradient, alpha=-eta * rate)

    def keep(self, going: Bool[Tensor, " s"]) -> None:
        """Forgets the networks that are not going on."""
        for group in (self.trained, self.fixed, self.velocity, self.target):
            for name, tensor in group.items():
                group[name] = tensor.detach()[going]
        self._watch()


def copies(models: Iterable[nn.Module]) -> Iterable[dict[str, Tensor]]:
    """The values of each model, copied before the next one is made (a maker may return one module again and again)."""
    for model in models:
        yield {name: tensor.clone() for name, tensor in tensors(model).items()}


def _columns(networks: Iterable[dict[str, Tensor]]) -> dict[str, list[Tensor]]:
    columns: dict[str, list[Tensor]] = {}
    for number, values in enumerate(networks):
        if number and {n: v.shape for n, v in values.items()} != {n: v[0].shape for n, v in columns.items()}:
            cause = "gives networks whose parameters differ in name or shape"
            raise ModelError("make_model", cause, "Let it give one architecture, whatever the seed")
        for name, tensor in values.items():
            columns.setdefault(name, []).append(tensor)
    return columns


def bytes_per_network(model: nn.Module, run: Callable[[], Any], training: Training) -> int:
    """What one network needs in the stack: weights, gradient, optimizer state, and what the backward pass keeps."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in tensors(model).values())
    held = {tensor.data_ptr() for tensor in tensors(model).values()}
    kept = 0

    def count_bytes(tensor: Tensor) -> Tensor:
        nonlocal kept
        if tensor.data_ptr() not in held:
            kept += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count_bytes, lambda tensor: tensor):
        run()
    decays_to_start = training.weight_decay > 0 and training.decay_to == "start"
    copies_of_weights = 2 + (training.momentum > 0) + (training.weight_decay > 0) + decays_to_start
    return copies_of_weights * weights + 2 * kept


def _place(model: nn.Module) -> str:
    return f"train_many({type(model).__name__})"
