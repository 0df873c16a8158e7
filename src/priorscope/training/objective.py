"""The loss of a training as a function of the outputs: its value, slope and curvature at given targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ..data.inputs import Labels
from ..errors import DataError, PriorscopeError, brief

Loss = str | Callable[[Tensor, Tensor], Tensor]
"""A named loss, or the user's own: (outputs (n, o), targets (n, o)) -> a scalar."""

ROUNDINGS = 4
"""How near labels must be to one-hot − 1/C to be taken for classes, in units of their dtype's rounding."""

OF_CLASSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.BCELoss, nn.BCEWithLogitsLoss)
OF_CLASSES_BY_FUNCTION = (
    functional.cross_entropy,
    functional.nll_loss,
    functional.binary_cross_entropy,
    functional.binary_cross_entropy_with_logits,
)
"""Torch's losses whose targets are classes or probabilities: of one-hot − 1/C they have no minimum."""


@dataclass(frozen=True)
class Objective:
    """A loss and its targets: "half_sse" ½Σ(f−y)², "mse" the mean of (f−y)², "cross_entropy" the mean of −log p(y).

    targets: (n, o), or (n,) classes for cross-entropy.
    """

    loss: Loss
    targets: Tensor

    @classmethod
    def of(cls, loss: Loss, labels: Labels, like: Float[Tensor, "n o"]) -> "Objective":
        """Of these labels, in the dtype and on the device of the outputs; the user's own loss is tried on them.

        Raises:
            DataError: labels that are no classes, for cross-entropy.
            PriorscopeError: a loss of the user's that is no scalar, or does not depend on the outputs; one of torch's
                that needs classes or probabilities, and would be given other targets.
        """
        if loss == "cross_entropy":
            return cls(loss, _classes(labels).to(like.device))
        objective = cls(loss, labels.values.to(like))
        if not isinstance(loss, str):
            _check_probabilities(loss, labels)
            _check_own(loss, like, objective.targets)
        return objective

    def __call__(self, outputs: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s"]:
        """The loss of each network's outputs."""
        if self.loss == "cross_entropy":
            rows = torch.arange(len(self.targets), device=self.targets.device)
            return -functional.log_softmax(outputs, -1)[..., rows, self.targets].mean(-1)
        if not isinstance(self.loss, str):
            if outputs.ndim == 2:
                return self.loss(outputs, self.targets)
            return self._stacked(outputs)
        squares = (outputs - self.targets).square()
        return squares.sum((-2, -1)) / 2 if self.loss == "half_sse" else squares.mean((-2, -1))

    def _stacked(self, outputs: Float[Tensor, "s n o"]) -> Float[Tensor, " s"]:
        try:
            return torch.vmap(lambda one: self.loss(one, self.targets))(outputs)  # type: ignore[operator]
        except (RuntimeError, ValueError):  # code that vmap cannot follow: the same numbers, one by one
            return torch.stack([self(one) for one in outputs])

    def take(self, index: Tensor) -> "Objective":
        """The same loss on some of the points."""
        return Objective(self.loss, self.targets[index])

    def gradient(self, outputs: Float[Tensor, "*s n o"]) -> Float[Tensor, "*s n o"]:
        """∂L/∂f of each network."""
        if self.loss == "cross_entropy":
            slope = outputs.softmax(-1)
            own = torch.arange(len(self.targets)), self.targets
            slope[(..., *own)] = 0
            # p − 1 as minus the other classes: near 0 it keeps its digits, which long flows need.
            slope[(..., *own)] = -slope.sum(-1)
            return slope / len(self.targets)
        leaf = outputs.detach().requires_grad_()
        return torch.autograd.grad(self(leaf).sum(), leaf)[0]

    def curvature(self, outputs: Float[Tensor, "n o"], along: Float[Tensor, "n o d"]) -> Float[Tensor, "d d"]:
        """Gᵀ H G, with H the Hessian ∂²L/∂f² and G directions in function space."""
        flat = along.flatten(0, 1)
        if self.loss == "cross_entropy":
            p = outputs.softmax(-1)[..., None]
            turned = p * (along - (p * along).sum(1, keepdim=True)) / len(self.targets)  # (diag p − p pᵀ) G / n
        else:
            turned = self._hessian(outputs) @ flat
        return flat.T @ turned.reshape(flat.shape)

    def _hessian(self, outputs: Float[Tensor, "n o"]) -> Float[Tensor, "k k"]:
        size = outputs.numel()
        return torch.autograd.functional.hessian(self, outputs.detach()).reshape(size, size)

    def largest_curvature(self, points: int, outputs: int) -> float | None:
        """The largest eigenvalue of H wherever the outputs are; None where it is not known beforehand.

        Of cross-entropy at most ½/n: by Gershgorin's circles, diag p − p pᵀ has none above max 2p(1 − p) ≤ ½.
        """
        known = {"half_sse": 1.0, "mse": 2 / (points * outputs), "cross_entropy": 0.5 / points}
        return known.get(self.loss) if isinstance(self.loss, str) else None


def name_of(loss: Loss) -> str:
    """What a loss is called: its own name, or that of the user's function or module."""
    return loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__)


def _classes(labels: Labels) -> Tensor:
    """(n,) classes: those of integer labels, or of their one-hot − 1/C."""
    found = labels.values.argmax(1)
    count = labels.outputs
    onehot = functional.one_hot(found, count).to(labels.values) - 1 / count
    if count < 2 or not bool((labels.values - onehot).abs().max() <= ROUNDINGS * torch.finfo(labels.dtype).eps):
        raise DataError("y", "holds no classes, which cross_entropy needs", "Give integers 0..C-1, as (n,)")
    return found


def _check_probabilities(loss: Callable[[Tensor, Tensor], Tensor], labels: Labels) -> None:
    """Raises where torch's loss of probabilities would be given targets that are none."""
    known = getattr(loss, "func", loss)  # of a functools.partial
    if not isinstance(known, OF_CLASSES) and known not in OF_CLASSES_BY_FUNCTION:
        return
    classes_only = isinstance(known, nn.NLLLoss) or known is functional.nll_loss
    values = labels.values
    if classes_only or bool((values < 0).any()) or bool((values > 1).any()):
        given = "y as it is" if labels.classes is None else "one-hot − 1/C, as losses of your own are given classes"
        cause = f"needs classes or probabilities as targets, and would be given {given}"
        remedy = 'Give loss="cross_entropy" and integer classes, or floating y of probabilities'
        raise PriorscopeError(f"Training(loss={name_of(loss)})", cause, remedy)


def _check_own(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, targets: Tensor) -> None:
    """Raises where the user's loss is no scalar that depends on the outputs and has a gradient."""
    place, remedy = f"Training(loss={name_of(loss)})", "Give a function (outputs (n, o), targets (n, o)) -> scalar"
    leaf = outputs.detach().clone().requires_grad_()
    try:
        value = loss(leaf, targets)
    except Exception as error:  # the user's code may raise anything
        cause = f"does not run on outputs and targets {tuple(leaf.shape)} ({brief(error)})"
        raise PriorscopeError(place, cause, remedy) from error
    if not isinstance(value, Tensor) or value.ndim != 0:
        given = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise PriorscopeError(place, f"gives {given}, not a scalar", f"{remedy}: reduce it, with .sum() or .mean()")
    slope = None
    if value.requires_grad:
        slope = torch.autograd.grad(value, leaf, allow_unused=True)[0]
    if slope is None:
        raise PriorscopeError(place, "does not depend on the outputs", f"{remedy}, without detach or no_grad")
    if not bool(torch.isfinite(value)) or not bool(torch.isfinite(slope).all()):
        raise PriorscopeError(place, "is NaN or infinite at the start, or its slope is", "Give a loss that is finite")
