"""What networks do that are drawn from the initialisation and trained on a loss that is not squared: by samples.

Their law is no Gaussian: each start is trained by itself, in function space.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from ..beliefs.coupling import Operator, labelled, on_labels, restored
from ..beliefs.samples import Samples
from ..data.inputs import Inputs, Labels, count
from ..errors import DataError
from ..kernels.on_data import OnData
from ..kernels.pair import KernelPair
from ..linalg.memory import check_memory
from ..linalg.symmetric import decompose
from ..results import Result, live
from . import filters
from .filters import check_at
from .function_space import Features, descend, flow, largest_curvature
from .function_trajectory import check_end, check_function_space, check_one_set
from .objective import Objective
from .prediction import notes_on, warn_beyond_limit
from .training import Training

HELD = 6
"""Copies of a sample's numbers that are held at once while it is trained."""


@dataclass(frozen=True, eq=False)
class SampledEnsemble(Result):
    """Samples of trained networks: f_t(x) = f₀(x) + Θ(x, X) α_t, with f₀ ~ N(0, K) drawn at all points together.

    K is the nngp, Θ the ntk; α_t is what the loss makes of f₀(X) (`FunctionTrajectory`). Outputs start independent.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: how the networks are trained.
        values: (r,), Gram eigenvalues of the ntk's modes, descending.
        curvature: λ_max(Θ) times the loss's largest curvature; of a loss of the user's own, at f = 0.
        fingerprints: (2, p, n), by which it knows the nngp and the ntk again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
        samples: how many networks. seed: of their draw; on the data they are the same networks in every call.
        notes: what a reader should know.
        pair: both kernels on the data. It is not saved: give it when loading.
        progress: shows a bar. Not saved.

    >>> from priorscope import trained_ensemble
    >>> from priorscope.kernels import RBF
    >>> x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([0, 1, 0])
    >>> training = Training(loss="cross_entropy", learning_rate=1.0, steps=300)
    >>> law = trained_ensemble(KernelPair(RBF(0.3), RBF(0.2)), x, y, training, samples=50)(x)
    >>> bool((law.values.argmax(-1) == y).all())  # on the data, all networks agree
    True
    """

    labels: Labels
    training: Training
    values: Float[Tensor, " r"]
    curvature: float
    fingerprints: Float[Tensor, "2 p n"]
    outputs: str
    samples: int
    seed: int
    notes: tuple[str, ...] = ()
    pair: KernelPair | None = live()
    progress: bool | None = live()

    def __call__(self, x_new: Inputs, at: float | None = None) -> Samples:
        """Trained networks at new points.

        Args:
            x_new: m points.
            at: time for the flow, whole steps for descent; None for the training's end.

        Returns:
            `Samples` of (m,) or (m, o), like y.

        Raises:
            MemoryBudgetError: before so many samples would not fit.
        """
        time = self.training.end if at is None else check_at(self.training, at)
        check_end(self.training, time)
        n, o = self.labels.values.shape
        needed = 8 * HELD * self.samples * (n + count(x_new)) * o
        check_memory(needed, f"training {self.samples} samples of {n + count(x_new)} points × {o} outputs")
        outputs = self._start_at(x_new) + self._features.extend(x_new, self._trained(time))
        return Samples(self.labels.restore(outputs))

    @property
    def step_limit(self) -> float:
        """The learning rate beyond which descent may diverge; see `FunctionTrajectory.step_limit`."""
        return filters.step_limit(torch.tensor([self.curvature], dtype=torch.float64), self.training, 1.0)

    def _trained(self, time: float) -> Float[Tensor, "s r c"]:
        """β of every network at one time."""
        if time not in self._known:
            starts, features = self._start, self._features
            objective = Objective.of(self.training.loss, self.labels, starts[0])
            if self.training.is_flow:
                shown = tqdm(starts, disable=not self.progress, desc="sampled networks", leave=False)
                decay = self.training.weight_decay
                found = torch.stack([flow(features, start, objective, decay, [time])[0] for start in shown])
            else:
                found = descend(features, starts, objective, self.training, [int(time)])[0]
            self._known[time] = found
        return self._known[time]

    @cached_property
    def _known(self) -> dict[float, Tensor]:
        """β at the times that were asked for before."""
        return {}

    @cached_property
    def _drawn(self) -> tuple[Float[Tensor, "s r o"], Tensor]:
        """What f₀ on the data is drawn from, a normal number for each mode of the nngp; where the draw goes on.

        New points take the same stream up there: a second one of the seed + 1 would be another ensemble's first.
        """
        generator = torch.Generator().manual_seed(self.seed)
        white = self._noise(self._nngp.eigen.rank, generator)
        return white, generator.get_state()

    def _noise(self, modes: int, generator: torch.Generator) -> Float[Tensor, "s r o"]:
        shape = (self.samples, modes, self.labels.outputs)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(self._nngp.gram.device)

    @cached_property
    def _roots(self) -> tuple[Tensor, Tensor]:
        """Modes of the nngp on the data (n, r), and the roots of their values (r,)."""
        eigen = self._nngp.eigen
        return eigen.vectors[:, : eigen.rank], eigen.values[: eigen.rank].sqrt()

    @cached_property
    def _start(self) -> Float[Tensor, "s n o"]:
        """f₀ on the data."""
        vectors, roots = self._roots
        return (vectors * roots) @ self._drawn[0]

    def _start_at(self, x_new: Inputs) -> Float[Tensor, "s m o"]:
        """f₀ at new points, given f₀ on the data: K(x, X) K⁻¹ f₀(X), and what K* − K(x, X) K⁻¹ K(X, x) leaves."""
        nngp, (vectors, roots) = self._nngp, self._roots
        if x_new is nngp.x:
            return self._start
        seen = nngp.cross(x_new) @ (vectors / roots)
        prior = nngp(x_new).detach().to(torch.float64)
        rest = prior - seen @ seen.T
        size = float(torch.maximum(nngp.gram.diagonal().max(), prior.diagonal().max()))
        spread = 1 + float((seen / roots).square().sum(1).max()) if len(roots) else 1.0
        precision = torch.finfo(nngp(nngp.x).dtype).eps
        # What the difference leaves of 0 must not become a random number of its root's size.
        eigen = decompose(rest, tolerance=(len(rest) + len(vectors)) * precision * size * spread)
        r = eigen.rank
        white, state = self._drawn
        generator = torch.Generator()
        generator.set_state(state)
        fresh = self._noise(r, generator)
        return seen @ white + (eigen.vectors[:, :r] * eigen.values[:r].sqrt()) @ fresh

    @cached_property
    def _features(self) -> Features:
        return Features(self._operator)

    @cached_property
    def _operator(self) -> Operator:
        return on_labels(restored(self._pair.ntk, self.fingerprints[1], _NAME, _REMEDY), self.labels)

    @cached_property
    def _nngp(self) -> OnData:
        return restored(self._pair.nngp, self.fingerprints[0], _NAME, _REMEDY)

    @property
    def _pair(self) -> KernelPair:
        if self.pair is None:
            raise DataError(_NAME, "was loaded without its kernels", _REMEDY)
        return self.pair


_NAME = "SampledEnsemble"
_REMEDY = "Give them: SampledEnsemble.load(path, pair=pair.on(x))"


def sampled_ensemble(
    pair: KernelPair, x: Inputs, y: Tensor, training: Training, samples: int, seed: int, progress: bool
) -> SampledEnsemble:
    """The trained ensemble of a loss that is not squared; `pair` is on x. Arguments as those of `trained_ensemble`."""
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise DataError("samples", f"is {samples!r}", "Give a whole number of at least 2")
    check_function_space(training, count(x))
    nngp, ntk = pair.nngp.on(x), pair.ntk.on(x)
    labels, operator = labelled(ntk, y)
    check_one_set(training, labels, ntk)
    zero = torch.zeros_like(labels.values)
    objective = Objective.of(training.loss, labels, zero)
    ensemble = SampledEnsemble(
        labels,
        training,
        operator.eigen.values[: operator.eigen.rank],
        largest_curvature(Features(operator), zero, objective),
        torch.stack([nngp.fingerprint, ntk.fingerprint]),
        operator.note,
        samples,
        seed,
        (*notes_on(training, count(x)), f"{samples} networks drawn at random and trained in function space"),
        pair,
        progress,
    )
    warn_beyond_limit(training, ensemble.step_limit, stacklevel=5)
    return ensemble
