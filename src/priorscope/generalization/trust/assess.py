"""`trust`: how far a prediction of what trained networks do deserves belief, before any of them is trained."""

from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

from torch import Tensor

from ...data.inputs import Inputs, check_inputs, count, encode, leaves
from ...errors import DataError, MemoryBudgetError, ModelError, NotCoveredError, RatesError
from ...kernels.infinite.limit import Limit
from ...kernels.kernel import Kernel
from ...kernels.pair import KernelPair
from ...results import Result
from ...training.filters import check_training
from ...training.training import Training
from ..candidates import distinguishable, kept_points
from .features import Prediction, features, measured
from .score import fitted
from .unseen import unseen

UNASSESSED = "not assessed: "
GOOD, POOR = 0.8, 0.4
OF_DRAWING = (NotCoveredError, ModelError, RatesError, MemoryBudgetError)
"""What drawing networks and looking at them can raise where the limit of the same networks has been computed."""


@dataclass(frozen=True, eq=False)
class Trust(Result):
    """How far a prediction deserves belief.

    score: in [0, 1], the fitted probability that the prediction is right (the median trained network leaves the
        ensemble's 99 % band at no more than 10 % of the test points); None where there is none.
    features: what the score is made of (`generalization/trust/features.py`), by name.
    contributions: what each adds to the score's log-odds; above 0 where it is lazier than the fitted cases' mean.
    like: (right, all) of the held-out cases with a score like it; None without a score.
    words: what it means. reason: why there is no score; None where there is one.
    notes: test points that were dropped, and what of the training and of the networks no fitted case had.
    """

    score: float | None
    features: dict[str, float]
    contributions: dict[str, float]
    like: tuple[int, int] | None
    words: str
    reason: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def worst(self) -> str | None:
        """The feature that speaks most against the prediction; None where none does."""
        if not self.contributions:
            return None
        name = min(self.contributions, key=lambda each: self.contributions[each])
        return name if self.contributions[name] < 0 else None


def trust(
    pair: KernelPair | Kernel,
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    training: Any = Training(),
    *,
    steps: Any = 0,
    seed: Any = 0,
) -> Trust:
    """How far the predicted law of trained networks deserves belief, from 0 to 1, before any is trained.

    score = 1/(1 + e^−z),   z = b − Σ wᵢ xᵢ,   wᵢ ≥ 0, over features xᵢ that grow with the distance from the lazy regime

    Five networks are drawn and looked at (their kernel on few points, and where the predicted course leads each of
    them); with `steps`, one is really trained that long. The weights are fitted by the experiment `trust`, on tasks
    that its record names.

    Args:
        pair: the limit of the networks, from `infinite_width(model)`.
        x, y: n training points and their labels, (n,), (n, o), or integer classes.
        x_new: m points at which the prediction is made. Those that the kernel cannot tell from training points are
            dropped, and a note says how many.
        training: the training really used.
        steps: steps of real training to look at; 0: none.
        seed: of the networks drawn.

    Returns:
        A `Trust`: `.score`, `.words`, `.features`, `.contributions`, and `.notes` on what no fitted case had.

    Raises:
        DataError: what is no pair; inputs and labels that do not fit; steps beyond the training, or of the flow; a
            seed that is no whole number of at least 0.
        IndistinguishableError: where all test points are training points, for the kernel.

    Source: Chizat et al. 2019 (1812.07956) for the lazy regime.

    A target ten times as large is learned further from the start:

    >>> import torch
    >>> from priorscope import Initialization, infinite_width
    >>> init = Initialization(2.0, 0.1, "ntk")
    >>> net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    >>> limit = infinite_width(init.apply_(net, 0), init)
    >>> x, x_new = torch.randn(8, 2), torch.randn(9, 2)
    >>> trust(limit, x, x[:, 0], x_new).score > trust(limit, x, 10 * x[:, 0], x_new).score
    True
    """
    check_training(training, "trust")
    if not isinstance(pair, KernelPair):
        raise DataError("trust", f"was given a {type(pair).__name__}", "Give infinite_width(model)")
    _check_steps(steps, training)
    _check_seed(seed)
    _check_data(x, y, x_new)
    reason = without(pair, training)
    if reason is not None:
        return _none(reason)
    frozen = pair.on(x)
    kept, told = distinguishable(frozen, x, x_new, "drop")
    found = assessed(frozen, y, kept_points(x_new, kept), training, steps, seed)
    return replace(found, notes=(*told, *found.notes))


def without(pair: KernelPair, training: Training) -> str | None:
    """Why a training of a pair's networks has no trust score; None where it may have one."""
    if not isinstance(pair.joint, Limit):
        return "the pair does not come from infinite_width by rules, so no network of it can be drawn"
    if training.loss not in ("half_sse", "mse"):
        return f"it was fitted on squared losses, and this is {training.loss!r}"
    try:
        training.require_covered(given_start=False)
    except NotCoveredError as error:
        return _uncovered(error)
    return None


def assessed(pair: KernelPair, y: Tensor, x_new: Inputs, training: Training, steps: int = 0, seed: int = 0) -> Trust:
    """The same of a pair on its data, at test points that its kernel can tell from them.

    At a training point the band has no width, and a network is infinitely many of its widths away.
    """
    reason = without(pair, training)
    if reason is not None:
        return _none(reason)
    try:
        prediction = Prediction.of(pair, y, x_new, training)
    except NotCoveredError as error:
        return _none(_uncovered(error))
    try:
        found = features(prediction, seed=seed)
        if steps:
            found |= measured(prediction, steps, seed)
    except OF_DRAWING as error:
        return _none(f"the networks could not be looked at ({error.place} {error.cause})")
    which = "after_steps" if steps else "before"
    fit = fitted()
    score = getattr(fit, which)
    value = score(found)
    like = fit.like(which, value)
    contributions = score.contributions(found)
    notes = unseen(prediction, score, found, fit.record["fitted on"])
    return Trust(value, found, contributions, like, _words(value, like, contributions), None, notes)


def _words(score: float, like: tuple[int, int], contributions: dict[str, float]) -> str:
    right, every = like
    judgement = "believe it" if score >= GOOD else "do not believe it" if score < POOR else "believe it with care"
    text = f"{judgement}: predictions were right in {right} of {every} held-out cases with a score like {score:.2f}"
    worst = min(contributions, key=lambda each: contributions[each])
    if score < GOOD and contributions[worst] < 0:
        text += f"; what speaks most against it is {WORDS[worst]}"
    return text


WORDS = {
    "bend": "that networks moved along their predicted course are not where it says",
    "escape": "that networks moved along their predicted course leave the band",
    "spread": "how far one network's kernel is from the limit's at this width",
    "travel": "how far the weights have to move",
    "slow modes": "how much is to be learned in slow modes",
    "step": "a learning rate near the step limit",
    "momentum": "the momentum",
    "points per unit": "the number of points for this width",
    "turn": "how fast a really trained network's kernel moves",
    "course": "how far a really trained network is off after these steps",
}
"""Each feature in words."""


def _uncovered(error: NotCoveredError) -> str:
    return f"no prediction covers this training ({error.place} {error.cause})"


def _none(reason: str) -> Trust:
    return Trust(None, {}, {}, None, f"{UNASSESSED}{reason}", reason)


def _check_steps(steps: Any, training: Training) -> None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise DataError("steps", f"is {steps!r}", "Give a whole number of steps of real training, or 0")
    if steps and training.is_flow:
        raise DataError("steps", "of gradient flow do not exist", "Give a training with learning_rate and steps")
    if steps and steps > training.end:
        raise DataError("steps", f"is {steps}, the training has {int(training.end)}", "Give at most so many")


def _check_seed(seed: Any) -> None:
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**63:
        raise DataError("seed", f"is {seed!r}", "Give a whole number of at least 0")


def _check_data(x: Inputs, y: Tensor, x_new: Inputs) -> None:
    check_inputs(x)
    check_inputs(x_new, "x_new")
    encode(y, count(x))
    given, new = ([tuple(leaf.shape[1:]) for leaf in leaves(each)] for each in (x, x_new))
    if given != new:
        shapes = (", ".join(map(str, each)) for each in (new, given))
        cause = "has points of shape {}, x has points of shape {}".format(*shapes)
        raise DataError("x_new", cause, "Give test points like the training points")
