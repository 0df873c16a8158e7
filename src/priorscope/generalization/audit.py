"""Many architectures × many hypotheses: what networks of each do with the same data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs
from ..errors import DataError, PriorscopeError
from ..kernels.pair import KernelPair
from ..results import Result
from ..training.training import Training
from .candidates import Candidate
from .compare import compare
from .verdict import Interval, Verdict, html_table, interval_text

Trainings = Training | Mapping[str, Training] | Callable[[KernelPair], Training]


@dataclass(frozen=True, eq=False)
class Audit(Result):
    """The verdicts of several architectures on the same hypotheses.

    verdicts: {architecture: Verdict}.
    """

    verdicts: dict[str, Verdict]

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.verdicts)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the hypotheses."""
        return next(iter(self.verdicts.values())).names

    @property
    def realised(self) -> Float[Tensor, "a k"]:
        """(architectures, hypotheses + 1): the probability that each is realised, that of neither last."""
        rows = [[*v.realised.values(), v.neither] for v in self.verdicts.values()]
        return torch.tensor(rows, dtype=torch.float64)

    @property
    def nearest(self) -> Float[Tensor, "a j"]:
        """(architectures, hypotheses): the probability that each is the nearest to the network."""
        return torch.tensor([list(v.nearest.values()) for v in self.verdicts.values()], dtype=torch.float64)

    def interval(self, architecture: str, name: str) -> Interval:
        """The 99 % interval of the probability that a hypothesis, or "neither", is realised."""
        intervals = self.verdicts[architecture].intervals
        return intervals["neither"]["neither"] if name == "neither" else intervals["realised"][name]

    def rows(self) -> tuple[tuple[str, ...], ...]:
        """The audit as a table of words: realised with its interval, then nearest."""
        asked = (*self.names, "neither")
        head = ("", *(f"{name} realised" for name in self.names), "neither", *(f"{n} nearest" for n in self.names))
        body = []
        for a, realised, nearest in zip(self.architectures, self.realised, self.nearest, strict=True):
            told = (f"{p:.3g} {interval_text(self.interval(a, n))}" for n, p in zip(asked, realised, strict=True))
            body.append((a, *told, *(f"{p:.3g}" for p in nearest)))
        return head, *body

    def _repr_html_(self) -> str:
        return html_table("Audit", self.rows())


def audit(
    architectures: Mapping[str, KernelPair],
    x: Inputs,
    y: Tensor,
    x_new: Inputs,
    candidates: Mapping[str, Candidate],
    training: Trainings = Training(),
    *,
    duplicates: Literal["raise", "drop"] = "raise",
    samples: int = 100_000,
    seed: int = 0,
) -> Audit:
    """Which of several generalisations networks of several architectures take: `compare` for each of them.

    Args:
        architectures: {name: both kernels of its networks}.
        x, y, x_new, candidates, duplicates, samples, seed: as in `compare`.
        training: one for all; {name: Training}, since step limits differ; or a function of the pair. Gradient flow to
            the end by default.

    Returns:
        An `Audit`: `.verdicts`, and all as one table.

    Raises:
        DataError: no architecture, or one without a training.
        What `compare` raises, with the architecture's name in front.

    >>> from priorscope.kernels import RBF
    >>> x, y, x_new = torch.tensor([[0.0], [1.0]]), torch.tensor([1.0, -1.0]), torch.tensor([[0.4], [1.6]])
    >>> pairs = {"smooth": KernelPair(RBF(2.0), RBF(2.0)), "rough": KernelPair(RBF(0.2), RBF(0.2))}
    >>> table = audit(pairs, x, y, x_new, {"line": lambda x: 1 - 2 * x[:, 0], "zero": lambda x: 0 * x[:, 0]})
    >>> table.verdicts["smooth"].nearest["line"] > table.verdicts["rough"].nearest["line"]
    True
    """
    if not isinstance(architectures, Mapping) or not architectures:
        cause = "are empty" if isinstance(architectures, Mapping) else f"are a {type(architectures).__name__}"
        raise DataError("architectures", cause, "Give {name: KernelPair}")
    verdicts = {}
    for name, pair in architectures.items():
        try:
            own = _training(training, name, pair)
            verdicts[name] = compare(
                pair, x, y, x_new, candidates, own, duplicates=duplicates, samples=samples, seed=seed
            )
        except PriorscopeError as error:
            raise type(error)(f"{name}: {error.place}", error.cause, error.remedy) from error
    return Audit(verdicts)


def _training(training: Any, name: str, pair: KernelPair) -> Training:
    if isinstance(training, Mapping):
        if name not in training:
            raise DataError("training", f"has none for {name!r}", "Give {name: Training} for every architecture")
        return training[name]
    return training(pair) if callable(training) and not isinstance(training, Training) else training
