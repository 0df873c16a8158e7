"""The torch optimizer of a real training: one group of parameters per rate, each with the learning rate η·c."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import NotCoveredError, PriorscopeError
from .training import OPTIMIZERS, Training


def is_sgd(training: Training) -> bool:
    """Whether the optimizer is SGD by name."""
    return training.optimizer == "sgd"


RATE = "rate of learning"
"""A parameter group's c, where a schedule sets its learning rate η·c anew at every step."""


def set_rate(optimizer: torch.optim.Optimizer, training: Training, step: int) -> None:
    """Gives every group the learning rate of this step of a schedule."""
    if training.schedule is None:
        return
    for group in optimizer.param_groups:
        group["lr"] = training.rate_at(step) * group[RATE]


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float], training: Training
) -> torch.optim.Optimizer:
    """The optimizer of a training, for the parameters whose rate is above 0.

    Raises:
        NotCoveredError: a factory that makes an optimizer that needs a closure.
        PriorscopeError: a factory that cannot be called with (params, lr=...).
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(rates[name], []).append(parameter)
    rate = training.largest_rate
    listed: list[dict[str, Any]] = [{"params": members, "lr": rate * c} for c, members in groups.items()]
    if training.schedule is not None:
        for group, c in zip(listed, groups, strict=True):
            group[RATE] = c
    if is_sgd(training):
        # Weight decay is added to the gradients by the caller: torch's own knows no target but zero.
        return torch.optim.SGD(listed, lr=rate, momentum=training.momentum, nesterov=training.nesterov)
    factory: Any = training.optimizer
    if isinstance(factory, str):
        factory = OPTIMIZERS[factory]
    try:
        optimizer = factory(listed, lr=rate)
    except (TypeError, ValueError) as error:
        cause = f"could not be made ({error})"
        raise PriorscopeError("Training(optimizer=)", cause, "Give a callable (params, lr=...) -> optimizer") from error
    if isinstance(optimizer, torch.optim.LBFGS):
        raise NotCoveredError("Training(optimizer=)", "is LBFGS, which needs a closure", "Give a first-order optimizer")
    return optimizer
