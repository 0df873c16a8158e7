"""Which of two rules networks take at points where they differ: predicted before training, and counted after it.

The points are asked in small groups. A network takes a rule in a group if it has the rule's sign at every point of it,
and neither if it takes none. Predicted from the trained ensemble, as `compare` does (realised, and neither), but for
many groups at once; measured by networks that `train_many` trains the same way.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..beliefs.gaussian import Gaussian
from ..beliefs.process import GaussianProcess
from ..beliefs.similarity import indistinguishable
from ..generalization.candidates import distinguishable
from ..kernels.infinite import infinite_width
from ..kernels.own import PrecomputedKernel
from ..kernels.pair import KernelPair
from ..network.initialization import Initialization
from ..training.ensemble import trained_ensemble
from ..training.runs import train_many
from ..training.training import Training
from .kept import kept

SAMPLES = 100_000
"""Networks that a prediction samples."""
AT_ONCE = 100
"""Repetitions of an experiment under the predicted law that are simulated at once."""
BETWEEN_CELLS = 100_000
"""Between the first seeds of two cells."""
TINY = torch.finfo(torch.float64).tiny

Maker = Callable[[int, int], nn.Module]
"""(width, seed) -> a network drawn from its initialization."""


def outcomes(rules: Sequence[str]) -> tuple[str, ...]:
    """What a network may do in a group: take one of the rules, or neither."""
    return (*rules, "neither")


@dataclass(frozen=True, eq=False)
class Points:
    """All points of some questions, and both kernels of a network between them, evaluated once.

    x: (n, ...). pair: of precomputed kernels, whose points are rows of x.
    """

    x: Tensor
    pair: KernelPair

    @classmethod
    def of(cls, make: Maker, init: Initialization, x: Tensor) -> "Points":
        """The kernels of infinitely wide networks."""
        limit = infinite_width(make(8, 0).to(torch.float64), init)(x)
        return cls(x, KernelPair(PrecomputedKernel(limit.nngp.detach()), PrecomputedKernel(limit.ntk.detach())))


@dataclass(frozen=True, eq=False)
class Question:
    """What networks are trained on, where they are asked, and what is predicted.

    points: all points. train, y: rows to train on, and their labels ±1. new: (m,), rows to ask. training: how.
    rules: names of both. signs: (2, m), what they say.
    groups: columns of `new`, those that the kernel can tell from all training points.
    law: of trained networks at the kept points, group after group.
    dropped: points that were asked in vain. contradicted: training points that the kernel cannot tell from one with the
    other label; networks learn the mean of both.
    """

    points: Points
    train: Int[Tensor, " n"]
    y: Float[Tensor, " n"]
    new: Int[Tensor, " m"]
    training: Training
    rules: tuple[str, ...]
    signs: Float[Tensor, "2 m"]
    groups: tuple[Tensor, ...]
    law: Gaussian
    dropped: int
    contradicted: int

    @cached_property
    def probability(self) -> Float[Tensor, "g 3"]:
        """That a trained network takes each rule in each group, and neither; `compare`'s realised and neither."""
        return self.chances(self.law)

    @cached_property
    def agreement(self) -> Float[Tensor, " 2"]:
        """The expected share of all kept points at which a trained network has each rule's sign."""
        above = torch.special.ndtr(self.law.mean / self.law.variance.sqrt().clamp_min(TINY))
        return torch.where(self.signs[:, self.kept] > 0, above, 1 - above).mean(-1)

    @property
    def kept(self) -> Int[Tensor, " k"]:
        """Columns of `new`, group after group."""
        return torch.cat(self.groups)

    def taken(self, outputs: Float[Tensor, "... m"]) -> Bool[Tensor, "... g 3"]:
        """Whether each network takes each rule in each group, and neither."""
        return taken([(outputs[..., group], self.signs[:, group]) for group in self.groups])

    def agreeing(self, outputs: Float[Tensor, "s m"]) -> Float[Tensor, "s 2"]:
        """Each network's share of the kept points at which it has each rule's sign."""
        kept = self.kept
        same = torch.sign(outputs[:, None, kept]) == self.signs[:, kept]
        return same.to(torch.float64).mean(-1)

    def chances(self, law: Gaussian, samples: int = SAMPLES, seed: int = 0) -> Float[Tensor, "g 3"]:
        """The probabilities of a law at the kept points."""
        return self._of_kept(law.sample(samples, seed=seed).to(torch.float64)).to(torch.float64).mean(0)

    def null(self, networks: int, draws: int, seed: int) -> Float[Tensor, "d g 3"]:
        """Shares less probability when `networks` functions are drawn from the predicted law itself."""
        parts = []
        for start in range(0, draws, AT_ONCE):
            number = min(AT_ONCE, draws - start)
            drawn = self.law.sample(number * networks, seed=seed + start).to(torch.float64)
            share = self._of_kept(drawn).to(torch.float64).reshape(number, networks, -1, 3).mean(1)
            parts.append(share - self.probability)
        return torch.cat(parts)

    def posteriors(self) -> dict[str, Float[Tensor, "g 3"]]:
        """`probability` under the two laws that trained networks do not follow."""
        rows = self.new[self.kept]
        kernels = {"NNGP posterior": self.points.pair.nngp, "NTK posterior": self.points.pair.ntk}
        return {
            name: self.chances(GaussianProcess(kernel).condition(self.train, self.y)(rows))
            for name, kernel in kernels.items()
        }

    def _of_kept(self, outputs: Float[Tensor, "s k"]) -> Bool[Tensor, "s g 3"]:
        sizes = [len(group) for group in self.groups]
        return taken(list(zip(outputs.split(sizes, -1), self.signs[:, self.kept].split(sizes, -1), strict=True)))


def taken(groups: Sequence[tuple[Tensor, Tensor]]) -> Bool[Tensor, "... g 3"]:
    """Outputs (..., k) and signs (2, k) of each group: which rule is taken, neither last."""
    found = []
    for outputs, signs in groups:
        rules = (torch.sign(outputs)[..., None, :] == signs).all(-1)
        found.append(torch.cat([rules, ~rules.any(-1, keepdim=True)], -1))
    return torch.stack(found, -2)


def question(
    points: Points,
    train: Tensor,
    y: Tensor,
    new: Tensor,
    rules: Mapping[str, Tensor],
    rate: float,
    momentum: float,
    steps: int,
    size: int,
) -> Question:
    """Predicts what networks trained on rows of points do at other rows, in groups of `size`.

    Args:
        rules: {name: (m,) signs at the new points}, two of them.
        rate: the learning rate in units of 1/λ_max of the NTK on the training rows.

    Raises:
        IndistinguishableError: where the kernel takes all new points for training points.
    """
    largest = float(points.pair.ntk.on(train).eigen.values[0])
    training = Training(learning_rate=rate / largest, momentum=momentum, steps=steps)
    signs = torch.stack(list(rules.values())).to(torch.float64)
    columns, _ = distinguishable(points.pair, train, new, "drop")
    groups = tuple(each[torch.isin(each, columns)] for each in torch.arange(len(new)).split(size))
    groups = tuple(group for group in groups if len(group))
    law = trained_ensemble(points.pair, train, y, training)(new[torch.cat(groups)])
    dropped, contradicted = len(new) - len(columns), _contradicted(points.pair, train, y)
    return Question(points, train, y, new, training, tuple(rules), signs, groups, law, dropped, contradicted)


def trained(
    make: Maker,
    init: Initialization,
    question: Question,
    width: int,
    networks: int,
    first_seed: int,
    path: Path | None = None,
    progress: bool = False,
) -> Float[Tensor, "s m"]:
    """The outputs of really trained networks at all new points; float32.

    path: a file that keeps them.
    """
    x = question.points.x.to(torch.float32)
    y = question.y.to(torch.float32)

    def run(seeds: list[int]) -> Tensor:
        if not seeds:
            return torch.zeros(0, len(question.new))
        runs = train_many(
            lambda seed: make(width, seed),
            seeds,
            x[question.train],
            y,
            question.training,
            rates=init,
            record=x[question.new],
            at=[0],
            progress=progress,
        )
        return runs.final[..., 0]

    def draw(count: int) -> dict[str, Tensor]:
        # The first alone: it is drawn again to know the kept file, and in another stack float32 would round otherwise.
        rest = list(range(first_seed + 1, first_seed + count))
        return {"outputs": torch.cat([run([first_seed]), run(rest)])}

    return kept(path, draw, networks)["outputs"].to(torch.float64)


def _contradicted(pair: KernelPair, train: Tensor, y: Tensor) -> int:
    above, below = train[y > 0], train[y < 0]
    if not len(above) or not len(below):
        return 0
    return int(indistinguishable(pair.ntk, above, below).sum() + indistinguishable(pair.ntk, below, above).sum())
