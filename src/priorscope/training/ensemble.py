"""What networks do that are drawn from the initialisation and then trained: a Gaussian in the limit of width."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..beliefs.coupling import Operator, labelled, on_labels, restored
from ..beliefs.gaussian import Gaussian
from ..data.inputs import Inputs, Labels, count
from ..errors import DataError, NotCoveredError
from ..kernels.frozen import takes_kernel_on_data
from ..kernels.kernel import Kernel
from ..kernels.on_data import OnData
from ..kernels.pair import KernelPair
from ..linalg.symmetric import decompose
from ..results import Result, live
from .filters import Scale, check_at, check_one_mean, check_training, residuals, step_limit, weights_filter
from .noise import carried, has_noise, noise_covariance
from .prediction import notes_on, warn_beyond_limit
from .sampled import SampledEnsemble, sampled_ensemble
from .training import Training, number

REMEDY = "Give them: TrainedEnsemble.load(path, pair=pair.on(x))"


@dataclass(frozen=True, eq=False)
class TrainedEnsemble(Result):
    """The law of trained networks: mean A Y, covariance K** + A K Aᵀ − A K(X, x) − (A K(X, x))ᵀ.

    K is the nngp, A = Θ(x, X) g_t(Θ) with Θ the ntk and g_t the training's filter. Label noise of variance σ² adds
    σ² A Aᵀ; mini-batches add their noise, to first order in the learning rate, in the mean over networks.

    Args:
        labels: the data's labels, as the mathematics takes them.
        training: how the networks are trained.
        values: (r,), Gram eigenvalues of the ntk's modes that are learned, descending.
        fingerprints: (2, p, n), by which it knows the nngp and the ntk again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
        notes: what a reader should know.
        label_noise: σ², the variance of the noise on every network's own labels.
        pair: both kernels on the data. It is not saved: give it when loading.

    Source: Lee et al. 2019 (1902.06720).
    """

    labels: Labels
    training: Training
    values: Float[Tensor, " r"]
    fingerprints: Float[Tensor, "2 p n"]
    outputs: str
    notes: tuple[str, ...] = ()
    label_noise: float = 0.0
    pair: KernelPair | None = live()

    def __call__(self, x_new: Inputs, at: float | None = None) -> Gaussian:
        """The law of trained networks at new points.

        Args:
            x_new: m points.
            at: time for the flow (may be infinite), whole steps for descent; None for the training's end.

        Returns:
            A `Gaussian` over (m,) or (m, o), like y.
        """
        time = self.training.end if at is None else check_at(self.training, at)
        operator, nngp = self._operator, self._nngp
        cross_nngp, cross_ntk = self._cross(x_new)
        eigen, r = operator.eigen, len(self.values)
        filtered = weights_filter(self.values, time, self.training, self._scale)
        modes = eigen.vectors[:, :r]
        A = (cross_ntk @ modes * filtered) @ modes.T
        prior = nngp.gram if x_new is nngp.x else nngp(x_new).detach().to(torch.float64)
        train, cross = operator.lift(nngp.gram), operator.lift(cross_nngp)
        # A K Aᵀ − A Cᵀ − C Aᵀ as one product and its transpose: symmetric as it is computed.
        half = A @ (train @ A.T / 2 - cross.T)
        covariance = operator.lift(prior) + half + half.T
        if self.label_noise:
            covariance = covariance + self.label_noise * A @ A.T
        mean = operator.unfold(A @ operator.fold(self.labels.values))
        size = float(torch.maximum(nngp.gram.diagonal().max(), prior.diagonal().max()))
        rounding = torch.finfo(operator.precision).eps * size * (1 + float(A.square().sum(1).max()))
        tolerance = (len(covariance) + len(train)) * rounding
        if has_noise(self.training, len(self.labels.values)) and time > 0:
            covariance = self._with_noise(covariance, cross_ntk, int(time))
        return Gaussian(self.labels.restore(mean), covariance, tolerance)

    @property
    def step_limit(self) -> float:
        """The learning rate beyond which descent (of mini-batches, its mean) diverges; see `Trajectory.step_limit`."""
        return step_limit(self.values, self.training, self._scale)

    @property
    def _scale(self) -> Scale:
        return self.training.mean_scale(*self.labels.values.shape)

    def _with_noise(
        self, covariance: Float[Tensor, "k k"], cross: Float[Tensor, "k l"], steps: int
    ) -> Float[Tensor, "j j"]:
        """The covariance with that of mini-batches, whose residuals are those of the ensemble: E[r rᵀ] of its labels
        less its functions is the sum over starts of y, and of the columns of a root of K + σ²."""
        operator, (n, o) = self._operator, self.labels.values.shape
        weights = carried(operator, cross, self.values, steps, self.training, self._scale)
        sizes = self.training.batch_sizes(n)
        train = self._nngp.gram + self.label_noise * torch.eye(n).to(self._nngp.gram)
        eigen = decompose(train)
        root = (eigen.vectors * eigen.values.clamp_min(0).sqrt())[:, : eigen.rank].contiguous()
        if operator.coupled or o == 1:
            # Each output has starts of its own: those of the others are 0.
            starts = torch.cat([self.labels.values.reshape(-1, 1), torch.kron(root, torch.eye(o).to(root))], 1)
            return covariance + self._noise_from(starts.reshape(n, o, -1), weights, steps, sizes)
        one = self._noise_from(root[:, None], weights, steps, sizes, shared=True)
        of_labels = self._noise_from(self.labels.values[:, :, None], weights, steps, sizes)
        return torch.kron(covariance + one, torch.eye(o).to(one)) + of_labels

    def _noise_from(
        self,
        starts: Float[Tensor, "n o l"],
        weights: Callable[[int], Tensor],
        steps: int,
        sizes: tuple[int, ...],
        shared: bool = False,
    ) -> Float[Tensor, "k k"]:
        operator = self._operator
        vectors = operator.eigen.vectors[:, : len(self.values)]
        columns = starts.reshape(len(vectors), -1)
        seen = vectors.T @ columns
        forgotten = 1 - residuals(self.values, range(steps), self.training, self._scale)

        def left(step: int) -> Tensor:
            return (columns - vectors @ (forgotten[step][:, None] * seen)).reshape(starts.shape)

        return noise_covariance(weights, left, starts.shape[2], steps, sizes, operator, shared)

    @cached_property
    def _operator(self) -> Operator:
        return on_labels(restored(self._pair.ntk, self.fingerprints[1], "TrainedEnsemble", REMEDY), self.labels)

    @cached_property
    def _nngp(self) -> OnData:
        return restored(self._pair.nngp, self.fingerprints[0], "TrainedEnsemble", REMEDY)

    @property
    def _pair(self) -> KernelPair:
        if self.pair is None:
            raise DataError("TrainedEnsemble", "was loaded without its kernels", REMEDY)
        return self.pair

    def _cross(self, x_new: Inputs) -> tuple[Tensor, Tensor]:
        """Both kernels between new points and the data; in one pass where the pair can."""
        if x_new is self._nngp.x or self._operator.coupled:
            return self._nngp.cross(x_new), self._operator.cross(x_new)
        both = self._pair(x_new, self._nngp.x)
        return both.nngp.detach().to(torch.float64), both.ntk.detach().to(torch.float64)


@takes_kernel_on_data
def trained_ensemble(
    pair: KernelPair | Kernel,
    x: Inputs,
    y: Tensor,
    training: Any = Training(),
    *,
    label_noise: Any = 0.0,
    samples: int = 2000,
    seed: int = 0,
    progress: bool = False,
) -> TrainedEnsemble | SampledEnsemble:
    """What networks do that are drawn from the initialisation and trained on (x, y), in the limit of width.

    f_t(x) ~ N(A Y, K** + A K Aᵀ − A K(X, x) − (A K(X, x))ᵀ), A = Θ(x, X) g_t(Θ). It is neither the posterior of the
    nngp nor that of the ntk.

    Args:
        pair: nngp and ntk of the same network (`infinite_width(model)`), or `pair.on(x)` (and then x is left out).
        x: n points.
        y: (n,) or (n, o), or integer classes (n,), which become one-hot − 1/C; C is the model's number of outputs,
            where the kernel is of a model with several. For independent outputs, any multiple of the model's is
            several sets of labels at once.
        training: a `Training`; gradient flow to the end by default.
        label_noise: σ², a variance: every network is trained on labels of its own, y plus independent noise.
        samples, seed: of a loss that is not squared: how many networks are drawn and trained, and the draw's seed.
        progress: shows a bar, where networks are trained one after the other (flow on a loss that is not squared).

    Returns:
        A `TrainedEnsemble`: call it with points for a `Gaussian`. For cross-entropy and losses of your own, whose
        networks are no Gaussian, a `SampledEnsemble`: call it with points for `Samples`.

    Raises:
        NotCoveredError: for a training that predictions do not cover, weight decay to zero among them.
        PriorscopeError: for a training that is none.
        DataError: for a lone kernel, labels that do not match, or a variance below 0.

    Source: Lee et al. 2019 (1902.06720).

    >>> from priorscope.kernels import RBF, Linear
    >>> x, y = torch.linspace(0, 1, 3)[:, None], torch.tensor([1.0, 0.0, 2.0])
    >>> ensemble = trained_ensemble(KernelPair(RBF(0.3), RBF(0.2)), x, y)
    >>> bool(ensemble(x).variance.max() < 1e-6)  # at the data, all networks agree
    True
    """
    if not isinstance(pair, KernelPair):
        cause = f"was given a lone {type(pair).__name__}: the law of trained networks needs the nngp and the ntk"
        raise DataError("trained_ensemble", cause, "Give infinite_width(model), or KernelPair(nngp, ntk)")
    training = check_training(training, "trained_ensemble")
    frozen = pair.on(x)
    training.require_covered(given_start=False)
    variance = number(label_noise)
    if variance is None or not 0 <= variance < math.inf:
        raise DataError("label_noise", f"is {label_noise!r}", "Give a variance, a finite number of at least 0")
    if not training.is_squared:
        if variance:
            cause = f"is of squared losses; this one is {training.loss_name}"
            raise NotCoveredError("label_noise", cause, "Leave it out, or give half_sse or mse")
        return sampled_ensemble(frozen, frozen.x, y, training, samples, seed, progress)
    nngp, ntk = frozen.nngp.on(frozen.x), frozen.ntk.on(frozen.x)
    labels, operator = labelled(ntk, y)
    check_one_mean(training, labels.outputs, ntk.outputs(ntk.x))
    values = operator.eigen.values[: operator.eigen.rank]
    fingerprints = torch.stack([nngp.fingerprint, ntk.fingerprint])
    notes = notes_on(training, count(x))
    ensemble = TrainedEnsemble(labels, training, values, fingerprints, operator.note, notes, variance, frozen)
    warn_beyond_limit(training, ensemble.step_limit, certain=not isinstance(ensemble._scale, tuple))
    return ensemble
