"""`Training`: one value that says how a network is trained, used alike by every prediction and by real training."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import torch

from ..errors import NotCoveredError, PriorscopeError

OPTIMIZERS: dict[str, type[torch.optim.Optimizer]] = {
    name.lower(): optimizer
    for name, optimizer in vars(torch.optim).items()
    if isinstance(optimizer, type)
    and issubclass(optimizer, torch.optim.Optimizer)
    and optimizer is not torch.optim.Optimizer
}
"""torch's optimizers by their names in lower case."""


@dataclass(frozen=True)
class Training:
    """How a network is trained.

    `Training()` is gradient flow on half_sse to the end. `time` without a learning rate: the flow until then.
    `learning_rate` with `steps`: exact discrete descent. Any other pairing raises.

    Args:
        loss: "half_sse" ½Σ(f−y)²; "mse", torch's nn.MSELoss, 2/(n·o) of the former; "cross_entropy".
        learning_rate: η of one step; each parameter moves with η·c, c its rate.
        momentum: β of heavy-ball momentum, as torch.optim.SGD has it (no dampening).
        nesterov: Nesterov's momentum, as torch.optim.SGD has it.
        weight_decay: acts on θ − target and is not multiplied by the rates.
        decay_to: "start" (target θ₀) or "zero".
        batch_size: None is full batch.
        steps: number of steps.
        time: time of gradient flow; None is until the end.
        until_loss: a real training stops early at this loss; predictions use `steps`, and say so.
        optimizer: "sgd", or the name (in any case) or factory of any torch optimizer (`train` runs it, predictions
            raise).

    Raises:
        PriorscopeError: a pairing that means nothing, a number out of its range, what is no number, or an optimizer
            that torch does not have.
        NotCoveredError: momentum or weight decay beside another optimizer than SGD; LBFGS, which needs a closure.
    """

    loss: Literal["half_sse", "mse", "cross_entropy"] = "half_sse"
    learning_rate: float | None = None
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    decay_to: Literal["start", "zero"] = "start"
    batch_size: int | None = None
    steps: int | None = None
    time: float | None = None
    until_loss: float | None = None
    optimizer: str | Callable[..., Any] = "sgd"

    def __post_init__(self) -> None:
        if self.loss not in ("half_sse", "mse", "cross_entropy"):
            _reject("loss", f"is {self.loss!r}", 'Give "half_sse", "mse" or "cross_entropy"')
        if self.decay_to not in ("start", "zero"):
            _reject("decay_to", f"is {self.decay_to!r}", 'Give "start" or "zero"')
        self._check_numbers()
        self._check_pairing()
        self._check_optimizer()

    def _check_numbers(self) -> None:
        """Every number is in its range, and is kept as Python's own float or int."""

        def check(name: str, holds: Callable[[float], bool], remedy: str, whole: bool = False) -> None:
            given = getattr(self, name)
            number = _number(given)
            if number is None or not holds(number) or (whole and not number.is_integer()):
                _reject(name, f"is {given!r}", remedy)
            # An int from the user's own: float() would round whole numbers beyond 2^53.
            object.__setattr__(self, name, int(given) if whole else number)

        check("momentum", lambda value: 0 <= value < 1, "Give a number in [0, 1)")
        check("weight_decay", lambda value: 0 <= value < math.inf, "Give a finite number of at least 0")
        if self.learning_rate is not None:
            remedy = "Give a positive number, or None for gradient flow"
            check("learning_rate", lambda value: 0 < value < math.inf, remedy)
        if self.batch_size is not None:
            remedy = "Give a whole number of at least 1, or None for full batch"
            check("batch_size", lambda value: value >= 1, remedy, whole=True)
        if self.steps is not None:
            check("steps", lambda value: value >= 0, "Give a whole number of at least 0", whole=True)
        if self.time is not None:
            check("time", lambda value: value >= 0, "Give a number of at least 0")
        if self.until_loss is not None:
            check("until_loss", lambda value: 0 < value < math.inf, "Give a positive number, or None for all steps")

    def _check_pairing(self) -> None:
        if self.learning_rate is None:
            for name in ("steps", "until_loss", "batch_size"):
                if getattr(self, name) is not None:
                    _reject(
                        name,
                        "has no learning_rate",
                        "Give learning_rate and steps, or time alone for the flow",
                    )
            for name in ("momentum", "nesterov"):
                if getattr(self, name):
                    _reject(name, "has no meaning for gradient flow", "Give learning_rate and steps")
        else:
            if self.time is not None:
                _reject("time", "is given with a learning_rate", "Give steps (time = steps · learning_rate)")
            if self.steps is None:
                _reject("learning_rate", "is given without steps", "Give steps; with until_loss they are the cap")
        if self.nesterov and self.momentum == 0:
            _reject("nesterov", "is given without momentum", "Give momentum > 0")

    def _check_optimizer(self) -> None:
        """A name is one of torch's, kept in lower case; what belongs to SGD stands beside no other optimizer."""
        if isinstance(self.optimizer, str):
            object.__setattr__(self, "optimizer", self.optimizer.lower())
            if self.optimizer not in OPTIMIZERS:
                _reject("optimizer", f"is {self.optimizer!r}, not in torch.optim", f"Give one of {sorted(OPTIMIZERS)}")
        elif not callable(self.optimizer):
            _reject("optimizer", f"is {self.optimizer!r}", "Give a name, or a callable (params, lr=...) -> optimizer")
        if self.optimizer == "sgd":
            return
        if self.is_flow:
            _reject("optimizer", "has no learning_rate", "Give learning_rate and steps")
        if self.optimizer in ("lbfgs", torch.optim.LBFGS):
            raise NotCoveredError(
                "Training(optimizer=)", "is LBFGS, which needs a closure", "Give a first-order optimizer"
            )
        extra = [name for name in ("momentum", "nesterov", "weight_decay") if getattr(self, name)]
        if extra:
            inside = f"optimizer=lambda params, lr: torch.optim.AdamW(params, lr=lr, {extra[0]}=...)"
            raise NotCoveredError(
                f"Training({extra[0]}=)",
                "belongs to the optimizer sgd and another one is named",
                f"Give it inside a factory: {inside}",
            )

    @property
    def is_flow(self) -> bool:
        """Gradient flow, rather than discrete steps."""
        return self.learning_rate is None

    @property
    def end(self) -> float:
        """When training ends, in the unit of `at`: a time (may be infinite) for the flow, steps for descent."""
        if self.is_flow:
            return math.inf if self.time is None else float(self.time)
        assert self.steps is not None
        return self.steps

    def loss_scale(self, points: int, outputs: int) -> float:
        """What multiplies the gradient of ½Σ(f−y)² in this loss: 1 for half_sse, 2/(n·o) for mse."""
        return 1.0 if self.loss == "half_sse" else 2.0 / (points * outputs)

    def on_half_sse(self, points: int, outputs: int) -> "Training":
        """The same descent or flow of a squared loss, said on half_sse: its rate or time takes the loss's scale."""
        scale = self.loss_scale(points, outputs)
        rate = None if self.learning_rate is None else self.learning_rate * scale
        time = None if self.time is None else self.time * scale
        return replace(self, loss="half_sse", learning_rate=rate, time=time)

    def uncovered(self, points: int | None = None) -> list[str]:
        """The fields that predictions do not cover, as `name=value`."""
        full_batch = self.batch_size is None or (points is not None and self.batch_size >= points)
        outside = {
            "loss": self.loss == "cross_entropy",
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay > 0,
            "batch_size": not full_batch,
            "optimizer": self.optimizer != "sgd",
        }
        return [f"{name}={getattr(self, name)!r}" for name, is_outside in outside.items() if is_outside]

    def require_covered(self, points: int | None = None) -> None:
        """Raises NotCoveredError, naming the fields, where a prediction does not cover this training."""
        outside = self.uncovered(points)
        if outside:
            raise NotCoveredError(
                f"Training({', '.join(outside)})",
                "is outside what predictions cover: full batch, half_sse or mse, flow, plain or heavy-ball descent",
                "Train it for real with ps.train, or predict a training without it",
            )


def _reject(name: str, cause: str, remedy: str) -> NoReturn:
    raise PriorscopeError(f"Training({name}=)", cause, remedy)


def _number(value: Any) -> float | None:
    """The value as a float; None for what is no number (text and truth values are none)."""
    if isinstance(value, (str, bytes, bool)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
