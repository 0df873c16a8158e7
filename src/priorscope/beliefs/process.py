"""Gaussian processes: the prior over labels, and what conditioning on data leaves of it."""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, Labels, count
from ..errors import DataError, PriorscopeWarning, SingularKernelError
from ..linalg.symmetric import Eigendecomposition
from ..network.initialization import number
from ..results import Result, live
from .coupling import GivenKernel, Operator, check_kernel, labelled, on_labels, on_outputs, restored
from .gaussian import Gaussian


@dataclass(frozen=True, eq=False)
class GaussianProcess:
    """Functions f ~ GP(0, k), observed as y = f(x) + ε with ε ~ N(0, noise).

    Args:
        kernel: the covariance; for untrained networks that is the NNGP. Given as `kernel.on(x)`, its factorisation
            is used again wherever the same x is.
        noise: the variance of ε, at least 0; a tensor, to fit it by `log_marginal_likelihood`.

    A PriorscopeWarning says when the kernel is an NTK in "standard", whose size as a prior grows with width.

    >>> from priorscope.kernels import RBF
    >>> x = torch.linspace(0, 1, 3)[:, None]
    >>> y = torch.tensor([1.0, 0.0, 2.0])
    >>> post = GaussianProcess(RBF(0.2)).condition(x, y)
    >>> bool(torch.allclose(post(x).mean, y, atol=1e-4))  # without noise it interpolates
    True
    """

    kernel: GivenKernel
    noise: float | Tensor = 0.0

    def __post_init__(self) -> None:
        check_kernel(self.kernel, "GaussianProcess")
        noise = number(self.noise)
        if not (noise >= 0 and math.isfinite(noise)):
            raise DataError("GaussianProcess(noise=)", f"is {self.noise}", "Give a variance: a number of at least 0")
        origin = self.kernel.origin
        if origin.kind in ("ntk", "empirical ntk") and origin.standard:
            warnings.warn(
                'GaussianProcess: an NTK in the "standard" parameterization has an amplitude that grows with width, '
                'so its probabilities mean little. Use the NNGP, or rates of parameterization="ntk".',
                PriorscopeWarning,
                stacklevel=3,
            )

    def prior(self, x: Inputs, outputs: int | None = None) -> Gaussian:
        """The law of observed labels at x: N(0, K + noise·I).

        Args:
            x: n points.
            outputs: None for labels (n,); o for labels (n, o). A kernel with outputs of its own brings their number.

        Returns:
            A `Gaussian` over (n,) or (n, o), in the kernel's dtype.
        """
        data = self.kernel.on(x)
        own = data.outputs(data.x) if data.coupled else None
        if outputs is None and own is not None and own > 1:
            outputs = own
        if outputs is not None and outputs < 1:
            raise DataError("outputs", f"is {outputs}", "Give at least 1, or None for labels (n,)")
        if own is not None and own != (outputs or 1):
            raise DataError("outputs", f"is {outputs}, the kernel has {own}", "Give None: the kernel brings them")
        operator = on_outputs(data, outputs or 1)
        eigen, noise = operator.eigen, number(self.noise)
        shifted = Eigendecomposition(eigen.values.clamp_min(0) + noise, eigen.vectors, eigen.tolerance)
        matrix = operator.gram(data.x)
        matrix = matrix + noise * torch.eye(len(matrix)).to(matrix)
        shape = (count(x),) if outputs is None else (count(x), outputs)
        mean = torch.zeros(shape, dtype=operator.precision, device=matrix.device)
        return Gaussian(mean, matrix, eigen.tolerance, factored=shifted if noise else eigen)

    def log_marginal_likelihood(self, x: Inputs, y: Tensor) -> Float[Tensor, ""]:
        """log N(Y; 0, K + noise·I), summed over outputs, differentiable in the noise and wherever the kernel is.

        Infinite-width and classical kernels are, in their inputs and in their variances or length scales, so that
        these can be fitted: see docs/fitting.py. `condition(x, y).log_marginal_likelihood` is its value.

        Args:
            x, y: as `condition` takes them.

        Returns:
            A float64 tensor without axes.

        Raises:
            SingularKernelError: where the kernel is singular on x and noise is 0.

        Source: Rasmussen and Williams 2006, eq. 2.30.
        """
        labels, operator = labelled(self.kernel.on(x), y)
        data = operator.data
        if number(self.noise) == 0 and operator.eigen.is_singular:
            raise _without_density(operator)
        blocks = data.blocks(data.x) if operator.coupled else data(data.x)
        values = operator.fold(labels.values)
        matrix = blocks.to(torch.float64).reshape(len(values), -1)
        root, failed = torch.linalg.cholesky_ex(matrix + self.noise * torch.eye(len(values)).to(matrix))
        if int(failed):
            raise _without_density(operator)
        squares = torch.linalg.solve_triangular(root, values.to(matrix), upper=False).square().sum()
        normaliser = 2 * root.diagonal().log().sum() + len(values) * math.log(2 * math.pi)
        return -(squares + values.shape[1] * normaliser) / 2

    def condition(self, x: Inputs, y: Tensor) -> "Posterior":
        """The process, given labels y at x.

        Args:
            x: n points.
            y: (n,) or (n, o), or integer classes (n,), which become one-hot − 1/C; C is the model's number of outputs,
                where the kernel is of a model with several. For independent outputs, any multiple of the model's is
                several sets of labels at once.

        Returns:
            A `Posterior`: call it with new points.

        Raises:
            SingularKernelError: where the kernel is singular on x, noise is 0, and y is none of its functions.
        """
        labels, operator = labelled(self.kernel.on(x), y)
        eigen, noise = operator.eigen, number(self.noise)
        notes: tuple[str, ...] = ()
        if eigen.is_singular and noise == 0:
            _require_in_range(operator, labels)
            note = f"the kernel has rank {eigen.rank} of {len(eigen.values)} on x; y lies in its range: pseudo-inverse"
            notes = (note,)
        weights = operator.unfold(eigen.solve(operator.fold(labels.values), noise))
        return Posterior(
            labels, weights, noise, eigen.rank, operator.data.fingerprint, operator.note, notes, operator.data
        )


@dataclass(frozen=True, eq=False)
class Posterior(Result):
    """A Gaussian process, given data. `post(x_new)` is the law of the latent function there.

    mean = K(x, X) (K + noise·I)⁻¹ Y, covariance = K(x, x) − K(x, X) (K + noise·I)⁻¹ K(X, x).

    Args:
        labels: the data's labels, as the mathematics takes them.
        weights64: (n, o), (K + noise·I)⁻¹ Y in float64.
        noise: the variance of the observations' noise.
        rank: of K on the data.
        fingerprint: (p, n), by which it knows its kernel again.
        outputs: "independent", "coupled", or "trace kernel, ..." with the reason.
        notes: what a reader should know, such as a pseudo-inverse.
        kernel: the kernel on its data. It is not saved: give it when loading.

    Source: Rasmussen and Williams 2006, eqs. 2.22-2.24.
    """

    labels: Labels
    weights64: Float[Tensor, "n o"]
    noise: float
    rank: int
    fingerprint: Float[Tensor, "p n"]
    outputs: str
    notes: tuple[str, ...] = ()
    kernel: GivenKernel = live()

    def __call__(self, x_new: Inputs) -> Gaussian:
        """The law of the latent function at m new points (without noise).

        Returns:
            A `Gaussian` over (m,) or (m, o), like y.
        """
        operator = self._operator
        modes, values = self._inverse
        cross = operator.cross(x_new)
        prior = operator.gram(x_new)
        mean = operator.unfold(cross @ operator.fold(self.weights64))
        half = cross @ modes / values.sqrt()
        matrix = prior - half @ half.T
        # Rounding of K, seen through the weights of influence, is what a vanishing variance drowns in.
        influence = (half / values.sqrt()).square().sum(1).max()
        size = torch.maximum(operator.eigen.values[0], prior.diagonal().max()) * (1 + influence)
        tolerance = (len(matrix) + len(modes)) * torch.finfo(operator.precision).eps * float(size)
        return Gaussian(self.labels.restore(mean), (matrix + matrix.T) / 2, tolerance)

    def influence(self, x_new: Inputs) -> Float[Tensor, "..."]:
        """How much each label moves each prediction, K(x_new, X) (K + noise·I)⁻¹.

        Returns:
            (m, n); (m, o, n, o) where outputs are coupled. Weights can be negative and need not sum to 1.
        """
        operator = self._operator
        modes, values = self._inverse
        weights = (operator.cross(x_new) @ modes / values) @ modes.T
        if operator.coupled:
            o = operator.outputs
            weights = weights.reshape(len(weights) // o, o, -1, o)
        return weights.to(self.labels.dtype)

    @property
    def weights(self) -> Tensor:
        """The representer's weights w = (K + noise·I)⁻¹ Y, like y: the mean is K(x, X) w."""
        return self.labels.restore(self.weights64)

    @cached_property
    def log_marginal_likelihood(self) -> float:
        """log N(Y; 0, K + noise·I), summed over outputs.

        Raises:
            SingularKernelError: where the kernel is singular on the data and noise is 0.
        """
        eigen = self._operator.eigen
        if eigen.is_singular and self.noise == 0:
            raise _without_density(self._operator)
        y = self._operator.fold(self.labels.values)
        values = eigen.values.clamp_min(0) + self.noise
        squares = (eigen.vectors.T @ y).square().sum(1) / values
        normaliser = y.shape[1] * (values.log() + math.log(2 * math.pi))
        return float(-(squares + normaliser).sum() / 2)

    @cached_property
    def _operator(self) -> Operator:
        remedy = "Give it: Posterior.load(path, kernel=kernel.on(x))"
        return on_labels(restored(self.kernel, self.fingerprint, "Posterior", remedy), self.labels)

    @cached_property
    def _inverse(self) -> tuple[Tensor, Tensor]:
        """V and λ of K + noise·I, null modes left out where there is no noise."""
        eigen = self._operator.eigen
        r = eigen.rank if self.noise == 0 else len(eigen.values)
        return eigen.vectors[:, :r], eigen.values[:r].clamp_min(0) + self.noise


def _without_density(operator: Operator) -> SingularKernelError:
    eigen = operator.eigen
    cause = f"the kernel has rank {eigen.rank} of {len(eigen.values)} on the data, so labels have no density"
    return SingularKernelError("log_marginal_likelihood", cause, "Give noise > 0, or more of it")


def _require_in_range(operator: Operator, labels: Labels) -> None:
    eigen, y = operator.eigen, operator.fold(labels.values)
    off = (y - eigen.apply(torch.ones_like, y)).norm()
    # Eigenvectors near the rank tolerance are known to half the digits.
    if off > 10 * torch.finfo(operator.precision).eps ** 0.5 * y.norm():
        raise SingularKernelError(
            "condition",
            f"the kernel has rank {eigen.rank} of {len(eigen.values)} on x, and a share of "
            f"{float(off / y.norm()) ** 2:.2g} of y lies outside its range: no function of this prior passes through y",
            "Give noise > 0",
        )
