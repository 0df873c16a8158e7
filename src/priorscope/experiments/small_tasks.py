"""Small tasks with two candidates for the test labels: their networks, really trained, and what was predicted of them.

Every task is learned by a fully connected network drawn by one law, with "ntk" rates, by plain full-batch descent.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr
from torch import Tensor, nn

from ..beliefs.gaussian import Gaussian
from ..kernels.infinite import infinite_width
from ..kernels.pair import KernelPair
from ..network.initialization import Initialization
from ..training.ensemble import trained_ensemble
from ..training.runs import train_many
from ..training.training import Training
from .kept import kept

LAW: dict[str, Any] = {"weight_variance": 2.0, "bias_variance": 0.1, "parameterization": "ntk"}
INIT = Initialization(**LAW)
SHARE = 0.45
"""The learning rate as a share of the step limit 2/λ_max."""
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
UNDECIDED, POINTS = 0.02, 8
"""Test points where the predicted probability lies between these are undecided; so many of them, evenly by rank."""
NARROW = 64
"""Width of the network whose structure the limit is derived from."""


@dataclass(frozen=True, eq=False)
class Task:
    """x (n, d), y (n,), x_new (m, d), and what A and B call the test points: a (m,), b (m,), each ±1."""

    name: str
    x: Tensor
    y: Tensor
    x_new: Tensor
    a: Tensor
    b: Tensor
    hidden: int = 1
    activation: str = "relu"

    def network(self, width: int, seed: int) -> nn.Module:
        layers: list[nn.Module] = []
        size = self.x.shape[1]
        for _ in range(self.hidden):
            layers += [nn.Linear(size, width), ACTIVATIONS[self.activation]()]
            size = width
        with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
            model = nn.Sequential(*layers, nn.Linear(size, 1)).to(torch.float64)
        return INIT.apply_(model, seed)

    @property
    def limit(self) -> KernelPair:
        return infinite_width(self.network(NARROW, 0), INIT)


def descent(task: Task, pair: KernelPair, steps: int) -> Training:
    """Plain descent on ½Σ(f − y)², its rate a fixed share of the limit's step limit."""
    largest = float(pair.ntk.on(task.x).eigen.values[0])
    return Training(learning_rate=SHARE * 2 / largest, steps=steps)


def law(task: Task, pair: KernelPair, training: Training) -> Gaussian:
    """The trained ensemble at the test points."""
    return trained_ensemble(pair, task.x, task.y, training)(task.x_new)


def undecided(belief: Gaussian) -> Int[Tensor, " k"]:
    """Up to 8 points whose sign is undecided, spread evenly by the rank of their probability."""
    p = torch.from_numpy(ndtr((belief.mean / belief.variance.sqrt()).numpy()))
    ranked = p.argsort(stable=True)
    open_ones = ranked[(p[ranked] > UNDECIDED) & (p[ranked] < 1 - UNDECIDED)]
    if len(open_ones) <= POINTS:
        return open_ones
    return open_ones[torch.linspace(0, len(open_ones) - 1, POINTS).round().to(torch.int64)]


def opened(task: Task, pair: KernelPair, training: Training) -> Task:
    """The task with those of its test points alone that the ensemble leaves undecided."""
    points = undecided(law(task, pair, training))
    return replace(task, x_new=task.x_new[points], a=task.a[points], b=task.b[points])


def functions(
    task: Task,
    training: Training,
    width: int,
    networks: int,
    first_seed: int,
    keep: Path | None,
    network: Callable[[int, int], nn.Module] | None = None,
    kind: str = "",
) -> Float[Tensor, "s m"]:
    """What really trained networks say at the test points.

    Args:
        network: (width, seed) -> an initialised network; the task's own by default. kind: what the kept file adds to
            its name then.
    """
    made = task.network if network is None else network

    def draw(count: int) -> dict[str, Tensor]:
        seeds = range(first_seed, first_seed + count)
        runs = train_many(partial(made, width), seeds, task.x, task.y, training, rates=INIT, record=task.x_new, at=[])
        return {"functions": runs.final[..., 0]}

    words = re.sub(r"[^a-z0-9]+", "-", task.name.lower()).strip("-")
    file = f"{words}{kind}_width-{width}_steps-{training.steps}_networks-{networks}_seed-{first_seed}.npz"
    return kept(None if keep is None else keep / file, draw, networks)["functions"]


def nearest_one(labels: Tensor, inputs: Tensor, x_new: Tensor) -> Tensor:
    """The label of the nearest training point; the first of several as near."""
    return labels[torch.cdist(x_new, inputs).argmin(1)]


def outcomes(task: Task, values: Float[Tensor, "*s m"]) -> Bool[Tensor, "*s q"]:
    """The statements of a task, of each function: positive at each test point; and, where A and B differ, nearer to A
    than to B over all test points."""
    positive = values > 0
    if torch.equal(task.a, task.b):
        return positive
    to_a, to_b = ((values - labels).square().sum(-1, keepdim=True) for labels in (task.a, task.b))
    return torch.cat([positive, to_a < to_b], -1)


def probabilities(task: Task, belief: Gaussian) -> Float[Tensor, " q"]:
    """The probability of each statement under a Gaussian, in closed form: Φ(mean/deviation) of what has to be > 0."""
    margins = [belief.project(direction) for direction in torch.eye(len(task.a)).to(task.a)]
    if not torch.equal(task.a, task.b):
        # |f − b|² − |f − a|² = 2 (a − b)·f, as |a| = |b|.
        margins.append(belief.project(task.a - task.b))
    return torch.tensor([float(ndtr(mean / math.sqrt(variance))) for mean, variance in margins]).to(torch.float64)
