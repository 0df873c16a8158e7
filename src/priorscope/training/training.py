"""`Training`: one value that says how a network is trained, used alike by every prediction and by real training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import NotCoveredError, PriorscopeError


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
        optimizer: "sgd", or the name or factory of any torch optimizer (`train` runs it, predictions raise).

    Raises:
        PriorscopeError: a pairing that means nothing, or a number out of its range.
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
        def reject(name: str, cause: str, remedy: str) -> None:
            raise PriorscopeError(f"Training({name}=)", cause, remedy)

        if self.loss not in ("half_sse", "mse", "cross_entropy"):
            reject("loss", f"is {self.loss!r}", 'Give "half_sse", "mse" or "cross_entropy"')
        if self.decay_to not in ("start", "zero"):
            reject("decay_to", f"is {self.decay_to!r}", 'Give "start" or "zero"')
        if self.learning_rate is not None and not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            reject(
                "learning_rate",
                f"is {self.learning_rate}",
                "Give a positive number, or None for gradient flow",
            )
        if not 0 <= self.momentum < 1:
            reject("momentum", f"is {self.momentum}", "Give a number in [0, 1)")
        if not self.weight_decay >= 0:
            reject("weight_decay", f"is {self.weight_decay}", "Give a number of at least 0")
        if self.batch_size is not None and self.batch_size < 1:
            reject("batch_size", f"is {self.batch_size}", "Give at least 1, or None for full batch")
        if self.steps is not None and (self.steps != int(self.steps) or self.steps < 0):
            reject("steps", f"is {self.steps}", "Give a whole number of at least 0")
        if self.time is not None and not self.time >= 0:
            reject("time", f"is {self.time}", "Give a number of at least 0")
        if self.learning_rate is None:
            for name in ("steps", "until_loss", "batch_size"):
                if getattr(self, name) is not None:
                    reject(
                        name,
                        "has no learning_rate",
                        "Give learning_rate and steps, or time alone for the flow",
                    )
            for name in ("momentum", "nesterov"):
                if getattr(self, name):
                    reject(name, "has no meaning for gradient flow", "Give learning_rate and steps")
            if self.optimizer != "sgd":
                reject("optimizer", "has no learning_rate", "Give learning_rate and steps")
        else:
            if self.time is not None:
                reject("time", "is given with a learning_rate", "Give steps (time = steps · learning_rate)")
            if self.steps is None:
                reject("learning_rate", "is given without steps", "Give steps; with until_loss they are the cap")
        if self.nesterov and self.momentum == 0:
            reject("nesterov", "is given without momentum", "Give momentum > 0")

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
