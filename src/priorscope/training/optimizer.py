"""The torch optimizer of a real training: one group of parameters per rate, each with the learning rate η·c."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..errors import NotCoveredError, PriorscopeError
from .training import Training


def is_sgd(training: Training) -> bool:
    """Whether the optimizer is SGD by name."""
    return isinstance(training.optimizer, str) and training.optimizer.lower() == "sgd"


def make_optimizer(
    parameters: Mapping[str, nn.Parameter], rates: Mapping[str, float], training: Training
) -> torch.optim.Optimizer:
    """The optimizer of a training, for the parameters whose rate is above 0.

    Raises:
        NotCoveredError: momentum, Nesterov's or weight decay with another optimizer than SGD; one that needs a closure.
        PriorscopeError: an optimizer that torch does not have.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        groups.setdefault(rates[name], []).append(parameter)
    rate = training.learning_rate
    assert rate is not None
    listed = [{"params": members, "lr": rate * c} for c, members in groups.items()]
    if is_sgd(training):
        # Weight decay is added to the gradients by the caller: torch's own knows no target but zero.
        return torch.optim.SGD(listed, lr=rate, momentum=training.momentum, nesterov=training.nesterov)
    _require_plain(training)
    factory: Any = training.optimizer
    if isinstance(factory, str):
        factory = _by_name(factory)
    try:
        optimizer = factory(listed, lr=rate)
    except (TypeError, ValueError) as error:
        cause = f"could not be made ({error})"
        raise PriorscopeError("Training(optimizer=)", cause, "Give a callable (params, lr=...) -> optimizer") from error
    if isinstance(optimizer, torch.optim.LBFGS):
        raise NotCoveredError("Training(optimizer=)", "is LBFGS, which needs a closure", "Give a first-order optimizer")
    return optimizer


def _require_plain(training: Training) -> None:
    extra = [name for name in ("momentum", "nesterov", "weight_decay") if getattr(training, name)]
    if extra:
        raise NotCoveredError(
            f"Training({extra[0]}=)",
            "belongs to the optimizer sgd and another one is named",
            f"Give it inside a factory: optimizer=lambda params, lr: torch.optim.AdamW(params, lr=lr, {extra[0]}=...)",
        )


def _by_name(name: str) -> Any:
    known = {
        key.lower(): value
        for key, value in vars(torch.optim).items()
        if isinstance(value, type) and issubclass(value, torch.optim.Optimizer) and value is not torch.optim.Optimizer
    }
    if name.lower() == "lbfgs":
        raise NotCoveredError("Training(optimizer=)", "is LBFGS, which needs a closure", "Give a first-order optimizer")
    if name.lower() not in known:
        raise PriorscopeError(f"Training(optimizer={name!r})", "is not in torch.optim", f"Give one of {sorted(known)}")
    return known[name.lower()]
