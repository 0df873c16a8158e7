"""Beyond the lazy regime: a short real training first, then the prediction with the kernel as it has become.

Kernels move most at the start of a training. The curve is the real training's as far as that was run; from there on it
is the prediction of the network as it then is, with its own kernel.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..data.inputs import Inputs, Labels
from ..errors import DataError, NotCoveredError
from ..kernels.empirical import EmpiricalNTK
from ..kernels.on_data import OnData
from ..network.function import check_module
from ..results import Result, live
from .prediction import Times, moments
from .run import Run, train
from .training import Training

SHARE = 0.05
"""The share of the steps that is really trained by default."""

Predict = Callable[[OnData, Tensor, Training, nn.Module], Any]
"""A kernel on its data, labels, a training and a start -> the trajectory from there."""


@dataclass(frozen=True, eq=False)
class RelinearisedTrajectory(Result):
    """A trajectory whose kernel was taken again after a short real training.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: all of it.
        ends: (k + 1,), the steps at which the network was kept: 0, and after each of the k parts that were trained.
        spent: the share of the training's steps that was really trained.
        trained_losses: the training loss at every step of the real training, its last one included.
        last: the prediction from the last of `ends` on, in steps from there; it has the modes and half-lives.
        notes: what a reader should know.
        networks: (k + 1), the network at each of `ends`. data: the first kernel on its data. Neither is saved.
        predict: what predicts from any of them.

    >>> from priorscope import trajectory
    >>> network, x, y = nn.Linear(2, 1).double(), torch.randn(4, 2).double(), torch.randn(4).double()
    >>> t = Training(learning_rate=0.1, steps=40)
    >>> path = trajectory(EmpiricalNTK(network), x, y, t, start=network, relinearise=2)
    >>> path.spent, torch.allclose(path.predictions(x)[0], path(x))  # linear in its parameters: nothing drifts
    (0.05, True)
    """

    labels: Labels
    training: Training
    ends: Int[Tensor, " e"]
    spent: float
    trained_losses: Float[Tensor, " t"]
    last: Any
    notes: tuple[str, ...] = ()
    networks: tuple[nn.Module, ...] | None = live()
    data: OnData | None = live()
    predict: Predict | None = live()

    def __call__(self, x_new: Inputs, at: Times | None = None) -> Float[Tensor, "..."]:
        """The function at new points: of the real training as far as it was run, then predicted.

        Args:
            x_new: m points.
            at: whole steps; None for the training's end. Several values give a leading axis.

        Returns:
            (m,) or (m, o), like y.
        """
        steps, several = self._steps(at)
        trained = [step for step in steps if step < self._done]
        later = [step - self._done for step in steps if step >= self._done]
        found = self._trained(x_new, trained) if trained else {}
        if later:
            self._live()
            predicted = self.last(x_new, at=later)
            found.update(zip((step + self._done for step in later), predicted, strict=True))
        outputs = torch.stack([found[step] for step in steps])
        return outputs if several else outputs[0]

    def predictions(self, x_new: Inputs, at: float | None = None) -> Float[Tensor, "e ..."]:
        """The prediction made at each of `ends`: how it drifts while the network is trained. The first one is the lazy.

        Args:
            x_new: m points.
            at: one step, not before the last of `ends`; None for the training's end.

        Returns:
            (k + 1, m) or (k + 1, m, o), like y.
        """
        (step,), _ = self._steps(at)
        if step < self._done:
            cause = f"is {step}, before the last of `ends`, {self._done}"
            raise DataError("at", cause, "Give a later step, or call the trajectory itself")
        begun = zip(self._paths, self.ends.tolist(), strict=True)
        return torch.stack([path(x_new, at=step - end) for path, end in begun])

    def losses(self, at: Times | None = None) -> Float[Tensor, "*t"]:
        """The training loss: measured as far as the network was trained, then predicted. Arguments as in a call."""
        steps, several = self._steps(at)
        losses = self.trained_losses[[min(step, self._done) for step in steps]]
        later = [place for place, step in enumerate(steps) if step >= self._done]
        if later:
            losses[later] = self.last.losses([steps[place] - self._done for place in later]).to(losses)
        losses = losses.to(self.labels.dtype)
        return losses if several else losses[0]

    @property
    def step_limit(self) -> float:
        """The learning rate beyond which descent diverges, by the kernel as it was taken again."""
        return self.last.step_limit

    @property
    def _done(self) -> int:
        return int(self.ends[-1])

    def _steps(self, at: Times | None) -> tuple[list[int], bool]:
        times, several = moments(self.training, at)
        return [int(time) for time in times], several

    def _live(self) -> tuple[tuple[nn.Module, ...], OnData, Predict]:
        if self.networks is None or self.data is None or self.predict is None:
            cause = "was loaded without its networks"
            raise DataError("RelinearisedTrajectory", cause, "Make it again: trajectory(..., relinearise=)")
        return self.networks, self.data, self.predict

    @cached_property
    def _paths(self) -> tuple[Any, ...]:
        """The predictions from each of `ends` on."""
        networks, data, predict = self._live()
        begun = list(zip(networks, self.ends.tolist(), strict=True))[1:-1]
        kernels = [data, *(kernel_at(network, data) for network, _ in begun)]
        first = [
            predict(kernel, self._y, _rest(self.training, end), network)
            for kernel, network, end in zip(kernels, networks, self.ends.tolist(), strict=False)
        ]
        return (*first, self.last)

    @property
    def _y(self) -> Tensor:
        """The labels as they were given: classes as classes, since one-hot − 1/C is rounded in y's dtype."""
        values = self.labels.values
        return self.labels.restore(values) if self.labels.classes is None else values.argmax(1)

    def _trained(self, x_new: Inputs, steps: Sequence[int]) -> dict[int, Tensor]:
        """What the real training did at some steps, run again from the last network that was kept before each."""
        networks, data, _ = self._live()
        found = {}
        for network, begin, end in zip(networks, self.ends.tolist(), self.ends.tolist()[1:], strict=False):
            here = [step - begin for step in steps if begin <= step < end]
            if here:
                run = _part(network, data, self._y, self.training, begin, begin + max(here), x_new, here)
                for step, outputs in zip(run.steps.tolist(), run.outputs, strict=True):
                    found[begin + step] = self.labels.restore(outputs.to(torch.float64))
        return found


def relinearised(
    data: OnData, y: Tensor, training: Training, start: Any, parts: Any, share: Any, predict: Predict
) -> RelinearisedTrajectory:
    """Trains `start` for a share of the steps, in parts, and predicts from there; see `trajectory`.

    Raises:
        NotCoveredError: a kernel that is not the network's own; a flow, momentum, weight decay, mini-batches; a
            training that diverges while it is run.
        DataError: no `start`, or another one than the kernel is of; numbers out of their range.
    """
    _check(data, training, start, parts, share)
    steps = int(training.end)
    done = max(parts, round(share * steps))
    ends = [round(done * part / parts) for part in range(parts + 1)]
    networks = [copy.deepcopy(start)]
    losses: list[float] = []
    for begin, end in pairwise(ends):
        run = _part(networks[-1], data, y, training, begin, end, None, range(end - begin + 1))
        if run.diverged_at is not None or run.model is None:
            cause = f"the real training diverges at step {begin + (run.diverged_at or 0)}"
            raise NotCoveredError("relinearise", cause, "Use a smaller learning rate")
        networks.append(run.model)
        losses = losses[:begin] + run.losses.tolist()
    last = predict(kernel_at(networks[-1], data), y, _rest(training, done), networks[-1])
    told = (f"{done} of {steps} steps ({done / steps:.2g} of the training) were really trained",)
    return RelinearisedTrajectory(
        last.labels,
        training,
        torch.tensor(ends),
        done / steps,
        torch.tensor(losses, dtype=torch.float64),
        last,
        (*last.notes, *told),
        tuple(networks),
        data,
        predict,
    )


def kernel_at(network: nn.Module, data: OnData) -> OnData:
    """The kernel of the network as it now is, as the first one was made: rates, dtype and memory are the same."""
    first = _empirical(data)
    model = copy.deepcopy(network).to(first.snapshot.dtype)
    return EmpiricalNTK(
        model, first.origin.rates, memory=first.memory, progress=first.progress, accumulate=first.accumulate
    ).on(data.x)


def _empirical(data: OnData) -> EmpiricalNTK:
    if not isinstance(data.kernel, EmpiricalNTK):
        cause = f"needs the kernel of the network itself, and was given a {type(data.kernel).__name__}"
        raise NotCoveredError("relinearise", cause, "Give EmpiricalNTK(model, rates=...) and start=model")
    return data.kernel


def _part(
    network: nn.Module,
    data: OnData,
    y: Tensor,
    training: Training,
    begin: int,
    end: int,
    record: Inputs | None,
    at: Sequence[int],
) -> Run:
    """The real training from one step to another."""
    rate = training.learning_rate if training.schedule is None else training.schedule[begin:end]
    piece = replace(training, learning_rate=rate, steps=end - begin, until_loss=None)
    return train(network, data.x, y, piece, rates=_empirical(data).origin.rates, record=record, at=at)


def _rest(training: Training, begin: int) -> Training:
    """The training from one step on."""
    steps = int(training.end) - begin
    rate = training.learning_rate if training.schedule is None else training.schedule[begin:]
    return replace(training, learning_rate=rate, steps=steps)


def _check(data: OnData, training: Training, start: Any, parts: Any, share: Any) -> None:
    if start is None:
        raise DataError("relinearise", "has no network to train", "Give start=model")
    first, model = _empirical(data), check_module(start, "start")
    training.require_covered()
    if training.is_flow:
        remedy = "Give learning_rate and steps; small steps follow the flow"
        raise NotCoveredError("relinearise", "was given a flow, which no real training runs", remedy)
    batches = len(training.batch_sizes(len(data.gram))) > 1
    beyond = {"momentum": training.momentum, "weight_decay": training.weight_decay, "batch_size": batches}
    for name in (name for name, given in beyond.items() if given):
        cause = "leaves a state behind (velocity, target, order) that a kernel taken anew does not carry on"
        raise NotCoveredError(f"Training({name}={getattr(training, name)})", cause, "Re-linearise plain descent")
    if first.snapshot.readout is not None:
        raise NotCoveredError("relinearise", "was given a kernel with a readout", "Put the readout into the module")
    if not same_values(first, model):
        raise DataError("start", "is not the network that the kernel is of", "Give EmpiricalNTK(start, rates=...)")
    if isinstance(parts, bool) or not isinstance(parts, int) or not 1 <= parts <= training.end:
        raise DataError("relinearise", f"is {parts!r}", f"Give a number of parts from 1 to {int(training.end)} steps")
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise DataError("share", f"is {share!r}", "Give a share of the steps, above 0 and at most 1")


def same_values(kernel: EmpiricalNTK, model: nn.Module) -> bool:
    """Whether the kernel was taken of parameters of these names and values."""
    values, own = kernel.snapshot.values, dict(model.named_parameters())
    if set(values) != set(own):
        return False
    dtype = min((kernel.snapshot.dtype, next(iter(own.values())).dtype), key=lambda d: -torch.finfo(d).eps)
    tolerance = math.sqrt(torch.finfo(dtype).eps)
    return all(
        value.shape == own[name].shape and torch.allclose(value.double(), own[name].double(), tolerance, tolerance)
        for name, value in values.items()
    )
