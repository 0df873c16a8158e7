"""One case of the experiment `trust`: one task at one setting and width; what was predicted, and what networks did."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ..errors import PriorscopeWarning
from ..kernels.infinite import infinite_width
from ..kernels.pair import KernelPair
from ..training.band import outside
from ..training.ensemble import trained_ensemble
from ..training.runs import train_many
from ..training.training import Training
from .kept import kept
from .trust_tasks import STEPS, Setting, Task


@dataclass(frozen=True)
class Case:
    """One task, trained in one way at one width."""

    task: Task
    setting: Setting
    width: int

    @property
    def name(self) -> str:
        return f"{self.task.name}, {self.setting.name}, width {self.width}"

    @cached_property
    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        """x, y (of the setting's size), x_new."""
        x, y, x_new = self.task.data()
        return x, self.setting.size * y, x_new

    @cached_property
    def pair(self) -> KernelPair:
        """The limit of the networks, on their data."""
        model = self.task.network(self.width, 0, torch.float64)
        return infinite_width(model, self.task.initialization).on(self.data[0])

    @cached_property
    def training(self) -> Training:
        momentum = self.setting.momentum
        one = Training(learning_rate=1e-12, momentum=momentum, steps=STEPS)
        limit = trained_ensemble(self.pair, *self.data[:2], one).step_limit
        return Training(learning_rate=self.setting.step * limit, momentum=momentum, steps=STEPS)

    def file(self, keep: Path, networks: int) -> Path:
        """Where in a folder the trained networks of this case are kept."""
        return keep / f"{self.name.replace(', ', '_').replace(' ', '-')}_{networks}.npz"

    def outside(self, networks: int, first_seed: int, keep: Path | None = None) -> Tensor:
        """(s,): the share of each trained network's test outputs that lies outside the predicted 99 % band.

        Of a kept case the first network is drawn and trained again: its outputs at the start, the predicted mean, and
        its share outside have to be the kept ones. The outputs at its end are not kept, so a change of training that
        leaves this one share as it was (most of all where it is 0) is not seen: after one, give another folder.
        """
        file = None if keep is None else self.file(keep, networks)
        return kept(file, lambda count: self._drawn(count, first_seed), networks)["outside"]

    def _drawn(self, count: int, first_seed: int) -> dict[str, Tensor]:
        x, y, x_new = self.data
        law = trained_ensemble(self.pair, x, y, self.training)(x_new)
        seeds = range(first_seed, first_seed + count)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # some are trained so that they diverge
            runs = train_many(
                lambda seed: self.task.network(self.width, seed),
                seeds,
                x.float(),
                y.float(),
                self.training,
                self.pair,
                record=x_new.float(),
                at=[0],
            )
        start = [self.task.network(self.width, seed, torch.float64)(x_new).detach().flatten() for seed in seeds]
        return {
            "outside": outside(law, runs.final),
            "start": torch.stack(start),
            "mean": law.mean.flatten().expand(count, -1).clone(),
        }


def cases_of(tasks: tuple[Task, ...], widths: tuple[int, ...] | None = None) -> Iterator[Case]:
    """All cases of these tasks, at the widths asked for (all of theirs by default), narrow ones first."""
    found = [Case(t, s, w) for t in tasks for s in t.settings for w in t.widths if widths is None or w in widths]
    yield from sorted(found, key=lambda case: case.width)
