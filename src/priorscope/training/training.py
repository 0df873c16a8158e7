"""`Training`: one value that says how a network is trained, used alike by every prediction and by real training."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Literal, NoReturn

import torch

from ..errors import NotCoveredError, PriorscopeError
from .objective import Loss, name_of

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

        v ← β v + g,   θ ← θ − ηₖ v   (Nesterov: θ ← θ − ηₖ (g + β v)),   g = c · ∂L/∂θ + w (θ − target)

    Args:
        loss: "half_sse" ½Σ(f−y)²; "mse", torch's nn.MSELoss, 2/(n·o) of the former; "cross_entropy", the mean over
            points, as torch's; or your own differentiable function (outputs (n, o), targets (n, o)) -> scalar. Its
            targets are floating: y itself, integer ±1 as they are, other integer classes as one-hot − 1/C.
        learning_rate: η of one step; each parameter moves with η·c, c its rate. A schedule is a sequence of rates,
            one a step (`steps` may then be left out), or a function of the step, from 0; it is kept as a tuple.
        momentum: β of heavy-ball momentum, as torch.optim.SGD has it (no dampening).
        nesterov: Nesterov's momentum, as torch.optim.SGD has it.
        weight_decay: acts on θ − target and is not multiplied by the rates.
        decay_to: "start" (target θ₀) or "zero".
        batch_size: None is full batch. Mini-batches are drawn without replacement, epoch by epoch; half_sse sums over
            the batch, mse is its mean.
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

    loss: Loss = "half_sse"
    learning_rate: float | torch.Tensor | Iterable[float] | Callable[[int], float] | None = None
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
        if not callable(self.loss) and self.loss not in ("half_sse", "mse", "cross_entropy"):
            remedy = 'Give "half_sse", "mse", "cross_entropy" or a function (outputs, targets) -> scalar'
            _reject("loss", f"is {self.loss!r}", remedy)
        if self.decay_to not in ("start", "zero"):
            _reject("decay_to", f"is {self.decay_to!r}", 'Give "start" or "zero"')
        self._check_numbers()
        self._check_pairing()
        self._check_optimizer()

    def _check_numbers(self) -> None:
        """Every number is in its range, and is kept as Python's own float or int."""

        def check(name: str, holds: Callable[[float], bool], remedy: str, whole: bool = False) -> None:
            given = getattr(self, name)
            value = number(given)
            if value is None or not holds(value) or (whole and not value.is_integer()):
                _reject(name, f"is {given!r}", remedy)
            # An int from the user's own: float() would round whole numbers beyond 2^53.
            object.__setattr__(self, name, int(given) if whole else value)

        check("momentum", lambda value: 0 <= value < 1, "Give a number in [0, 1)")
        check("weight_decay", lambda value: 0 <= value < math.inf, "Give a finite number of at least 0")
        if self.batch_size is not None:
            remedy = "Give a whole number of at least 1, or None for full batch"
            check("batch_size", lambda value: value >= 1, remedy, whole=True)
        if self.steps is not None:
            check("steps", lambda value: value >= 0, "Give a whole number of at least 0", whole=True)
        if self.time is not None:
            check("time", lambda value: value >= 0, "Give a number of at least 0")
        if self.until_loss is not None:
            check("until_loss", lambda value: 0 < value < math.inf, "Give a positive number, or None for all steps")
        self._check_rate()

    def _check_rate(self) -> None:
        """The learning rate is a positive number, or a schedule that gives one of at least 0 for each step."""
        given: Any = self.learning_rate
        if given is None:
            return
        if callable(given):
            if self.steps is None:
                _reject("learning_rate", "is a function of the step, without steps", "Give steps")
            given = [given(step) for step in range(self.steps)]
        elif not _is_schedule(given):
            rate = number(given)
            if rate is None or not 0 < rate < math.inf:
                remedy = "Give a positive number, a schedule, or None for gradient flow"
                _reject("learning_rate", f"is {given!r}", remedy)
            object.__setattr__(self, "learning_rate", rate)
            return
        given = list(given)
        rates = [number(rate) for rate in given]
        bad = [step for step, rate in enumerate(rates) if rate is None or not 0 <= rate < math.inf]
        if bad:
            cause = f"is a schedule whose rate at step {bad[0]} is {given[bad[0]]!r}"
            _reject("learning_rate", cause, "Give finite numbers of at least 0")
        if self.steps is not None and self.steps != len(rates):
            cause = f"is a schedule of {len(rates)} steps, steps={self.steps}"
            _reject("learning_rate", cause, "Leave steps out, or give one rate for each")
        object.__setattr__(self, "learning_rate", tuple(rates))
        object.__setattr__(self, "steps", len(rates))

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

    @property
    def schedule(self) -> tuple[float, ...] | None:
        """The learning rate of each step, where they are not all the same by construction; else None."""
        return self.learning_rate if isinstance(self.learning_rate, tuple) else None

    def rate_at(self, step: int) -> float:
        """η of one step, counted from 0."""
        assert self.learning_rate is not None
        return self.schedule[step] if self.schedule is not None else self.learning_rate  # type: ignore[return-value]

    @property
    def largest_rate(self) -> float:
        """The largest η of all steps."""
        return max(self.schedule, default=0.0) if self.schedule is not None else self.rate_at(0)

    @property
    def stated_rate(self) -> str:
        """The learning rate in words."""
        if self.schedule is None:
            return "none" if self.is_flow else f"{self.rate_at(0):.4g}"
        return f"scheduled from {self.rate_at(0):.4g} to {self.rate_at(-1):.4g}" if self.schedule else "none"

    def scaled(self, factor: float) -> "Training":
        """The same training with every learning rate multiplied."""
        if self.schedule is not None:
            return replace(self, learning_rate=[factor * rate for rate in self.schedule])
        return replace(self, learning_rate=factor * self.rate_at(0))

    @property
    def decays_to_zero(self) -> bool:
        """Whether weight decay draws the weights themselves to 0, which a prediction needs the network for."""
        return self.weight_decay > 0 and self.decay_to == "zero"

    def batch_sizes(self, points: int) -> tuple[int, ...]:
        """The sizes of an epoch's mini-batches, in order; (n,) for full batch."""
        size = points if self.batch_size is None else min(self.batch_size, points)
        rest = points % size if size else 0
        return (size,) * (points // size if size else 1) + (rest,) * (rest > 0)

    @property
    def is_squared(self) -> bool:
        """Whether the loss is half_sse or mse, whose trainings are linear in the labels and known in closed form."""
        return self.loss in ("half_sse", "mse")

    @property
    def loss_name(self) -> str:
        """The loss in words."""
        return name_of(self.loss)

    def loss_scale(self, points: int, outputs: int) -> float:
        """What multiplies the gradient of ½Σ(f−y)² in this loss: 1 for half_sse, 2/(n·o) for mse."""
        return 1.0 if self.loss == "half_sse" else 2.0 / (points * outputs)

    def mean_scale(self, points: int, outputs: int) -> float | tuple[float, ...]:
        """The same in the mean over mini-batches: b/n for half_sse, which sums over the batch; 2/(n·o) for mse.

        A tuple holds one number for each step of an epoch, where its batches are of unlike sizes.
        """
        if self.loss != "half_sse":
            return self.loss_scale(points, outputs)
        shares = tuple(size / points for size in self.batch_sizes(points)) if points else (1.0,)
        return shares[0] if len(set(shares)) == 1 else shares

    def on_half_sse(self, points: int, outputs: int) -> "Training":
        """The same descent or flow of a squared loss, said on half_sse.

        The rate or time is multiplied by the loss's scale s, weight decay divided by it. Of a mini-batch of b points
        the scale is 2/(b·o).

        Raises:
            NotCoveredError: a loss that is not squared; mini-batches of unlike sizes beside momentum or weight decay.
        """
        if not self.is_squared:
            cause = "is no multiple of half_sse: it is not squared"
            raise NotCoveredError(f"Training(loss={self.loss_name!r}).on_half_sse", cause, "Give half_sse or mse")
        if self.loss == "half_sse":
            return self
        sizes = self.batch_sizes(points)
        scale = self.loss_scale(sizes[0], outputs)
        decay, target = self.weight_decay / scale, self.until_loss
        until = None if target is None else target / self.loss_scale(points, outputs)
        if self.is_flow:
            time = None if self.time is None else self.time * scale
            return replace(self, loss="half_sse", time=time, weight_decay=decay, until_loss=until)
        if len(set(sizes)) == 1:
            return replace(self.scaled(scale), loss="half_sse", weight_decay=decay, until_loss=until)
        if self.momentum or self.weight_decay:
            cause = f"has mini-batches of {sizes[0]} and of {sizes[-1]} points, whose means have other scales"
            remedy = "Give a batch_size that divides the number of points"
            raise NotCoveredError(f"Training(loss='mse', batch_size={self.batch_size})", cause, remedy)
        each = [self.loss_scale(size, outputs) for size in sizes]
        rates = [self.rate_at(step) * each[step % len(each)] for step in range(int(self.end))]
        return replace(self, loss="half_sse", learning_rate=rates, until_loss=until)

    def uncovered(self) -> list[str]:
        """The fields that predictions do not cover, as `name=value`."""
        return [f"optimizer={self.optimizer!r}"] if self.optimizer != "sgd" else []

    def require_covered(self, given_start: bool = True) -> None:
        """Raises NotCoveredError, naming the fields, where a prediction does not cover this training.

        Args:
            given_start: whether one given network is trained, whose weights weight decay to zero draws to 0.
        """
        outside = self.uncovered()
        if outside:
            raise NotCoveredError(
                f"Training({', '.join(outside)})",
                "is outside what predictions cover: gradient flow and SGD",
                "Train it for real with ps.train, or predict a training without it",
            )
        if self.decays_to_zero and not given_start:
            raise NotCoveredError(
                f"Training(weight_decay={self.weight_decay!r}, decay_to='zero')",
                "moves functions by J(x)·θ₀, which one given network has and a law of functions does not",
                "Give trajectory(..., start=model), or decay_to='start'",
            )


def _reject(name: str, cause: str, remedy: str) -> NoReturn:
    raise PriorscopeError(f"Training({name}=)", cause, remedy)


def _is_schedule(rate: Any) -> bool:
    """Whether a rate is several: a tensor or an array of one axis is, even of one entry."""
    axes = getattr(rate, "ndim", None)
    if axes is not None:
        return bool(axes)
    return isinstance(rate, Iterable) and not isinstance(rate, (str, bytes)) and number(rate) is None


def number(value: Any) -> float | None:
    """The value as a float; None for what is no number (text and truth values are none)."""
    if isinstance(value, (str, bytes, bool)):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
