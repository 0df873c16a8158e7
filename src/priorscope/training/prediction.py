"""What every prediction of a training shares: its start, the moments asked for, and what a reader should know."""

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..data.inputs import Inputs
from ..errors import DataError, PriorscopeWarning
from ..network.function import initial_function
from .filters import check_at
from .noise import has_noise
from .training import Training

Times = float | Sequence[float] | Tensor


def moments(training: Training, at: Times | None) -> tuple[list[float], bool]:
    """The times or steps asked for, and whether they are several; None is the training's end."""
    if at is None:
        return [training.end], False
    if isinstance(at, (int, float, str)) or getattr(at, "ndim", 1) == 0:
        return [check_at(training, at)], False
    times = [check_at(training, t) for t in at]  # type: ignore[union-attr]
    if not times:
        raise DataError("at", "is empty", "Give at least one time, or None for the training's end")
    return times, True


def check_start(start: nn.Module, x: Inputs, begun: Float[Tensor, "n o"], place: str) -> None:
    """Raises a DataError where a network's outputs at the data are not those that a loaded prediction starts from."""
    given = initial_function(start, x, begun.shape[1])
    parameter = next(start.parameters(), begun)
    tolerance = torch.finfo(parameter.dtype).eps ** 0.5 * float(begun.abs().max())
    gap = float((given.to(begun) - begun).abs().max())
    if not gap <= tolerance:
        cause = f"is not the network that this prediction starts from: at the data they differ by {gap:.2g}"
        raise DataError("start", cause, f"Give that one: {place}.load(path, kernel=..., start=model)")


def notes_on(training: Training, points: int) -> tuple[str, ...]:
    """What a reader of a prediction of this training should know."""
    notes = []
    if training.until_loss is not None:
        notes.append(
            f"predicted at {training.steps} steps; until_loss={training.until_loss:g} ends only a real training early"
        )
    if has_noise(training, points):
        notes.append(
            f"mini-batches of {training.batch_size}: their mean and their noise are of first order in the learning rate"
        )
    return tuple(notes)


def warn_beyond_limit(training: Training, limit: float, stacklevel: int = 4, certain: bool = True) -> None:
    """A PriorscopeWarning where the learning rate, or the largest of its schedule, is beyond the limit.

    certain: whether descent diverges beyond it; of mini-batches of unlike sizes it only may.
    """
    if text := beyond_limit(training, limit, certain):
        warnings.warn(text, PriorscopeWarning, stacklevel=stacklevel)


def beyond_limit(training: Training, limit: float, certain: bool = True) -> str:
    """What that warning says; nothing where the rate is within the limit."""
    if training.is_flow or training.largest_rate <= limit:
        return ""
    rate = f"learning_rate={training.largest_rate:g}"
    if not training.is_squared:
        return (
            f"{rate} is beyond the limit {limit:.4g} of this kernel and {training.loss_name}: descent may oscillate or "
            "diverge. The prediction is of it as it is; use a smaller one where that is not meant."
        )
    if training.schedule is None:
        return (
            f"{rate} is beyond the limit {limit:.4g} of this kernel: "
            + ("descent diverges, and the prediction with it. " if certain else "descent may diverge. ")
            + "Use a smaller one."
        )
    beyond = sum(rate > limit for rate in training.schedule)
    return (
        f"the learning rates of {beyond} of {len(training.schedule)} steps, up to {training.largest_rate:.4g}, are "
        f"beyond the limit {limit:.4g} of this kernel: in these steps its first modes grow. The prediction is of "
        "this schedule as it is; use smaller ones where that is not meant."
    )
