"""How much of a target a kernel learns from n samples, and the test error that is left: no training, no draws.

One number, κ, is solved for; every mode's learnability and every error follow from it. Over a density these are the
formulas of Simon et al.; over a finite population, whose samples hold no point twice, they have corrections of order
n/N, which come from the free compression of the Gram matrix of all points to that of the sampled ones.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from ..beliefs.coupling import GivenKernel, check_kernel
from ..beliefs.modes import Spectrum, eigenmodes
from ..beliefs.operator import OperatorSpectrum, operator_spectrum
from ..data.inputs import Inputs, count, encode
from ..errors import DataError, PriorscopeWarning
from ..kernels.frozen import takes_kernel_on_data
from ..results import Result

NEAR = 10
"""Without a ridge, so near the number of modes the formula for errors is off by a tenth or more."""


@dataclass(frozen=True, eq=False)
class Learnability(Result):
    """What kernel regression learns of each mode and of a target. For one n: scalars, (r,); for k values: (k,), (k, r).

    Args:
        n: the number of training samples.
        kappa: κ, with Σ λᵢ/(λᵢ + κ) + δ/κ = n (over a finite population of N: δ/κ times 1 − Σ L/N). A mode far above
            it is learned, a mode far below is not.
        learnability: Lᵢ = λᵢ/(λᵢ + κ), for each mode of an eigenvalue: the share of it that is learned.
        error: expected squared error at a new point, its label's noise included.
        bias, variance: its parts beside the noise: of the mean prediction, and of the predictions about their mean.
        spectrum, power, off, ridge, noise: what was given.
    """

    n: Tensor
    kappa: Float[Tensor, "*k"]
    learnability: Float[Tensor, "*k r"]
    error: Float[Tensor, "*k"]
    bias: Float[Tensor, "*k"]
    variance: Float[Tensor, "*k"]
    spectrum: OperatorSpectrum
    power: Float[Tensor, " r"]
    off: float
    ridge: float
    noise: float

    @property
    def target(self) -> Float[Tensor, "*k"]:
        """The learnability of the target: its modes' mean, weighted by its power in each; off the modes it is 0."""
        return self.learnability @ self.power / (self.power.sum() + self.off)

    @property
    def conserved(self) -> Float[Tensor, "*k"]:
        """Σ L + δ/κ over all modes, which is n: what samples there are is shared out among the modes.

        Without a ridge and with at least as many samples as modes, κ = 0: it is the number of modes, as there is
        nothing more to learn.
        """
        spectrum = self.spectrum
        learned = self.learnability @ spectrum.multiplicity.to(torch.float64)
        unseen = 1.0 if spectrum.population is None else 1 - learned / spectrum.population
        shift = self.ridge + spectrum.rest
        # Where κ = 0 there is no ridge.
        return learned if shift == 0 else learned + shift / self.kappa * unseen


def learnability(
    spectrum: OperatorSpectrum | Spectrum | Tensor,
    power: Tensor,
    n: int | Sequence[int],
    ridge: float = 0.0,
    noise: float = 0.0,
    off: float = 0.0,
) -> Learnability:
    """How much of each mode kernel ridge regression learns from n samples, and its expected test error.

    Lᵢ = λᵢ/(λᵢ + κ) with Σ Lᵢ + δ/κ = n, the sum over all modes; error = E₀ (Σ (1 − Lᵢ)² cᵢ² + off + σ²) with
    E₀ = n/(n − Σ Lᵢ²).

    Over a finite population of N points (`spectrum.population`): Σ Lᵢ + (δ/κ)(1 − Σ Lᵢ/N) = n, the error is that at
    points outside the sample, E₀ = nN/((N − n)(n − Σ Lᵢ²) + (n − Σ Lᵢ)²), and σ² in the bracket counts
    1 − (2 Σ Lᵢ − Σ Lᵢ²)/N times. For N → ∞ these are the former.

    Args:
        spectrum: an `OperatorSpectrum`; or its values (r,), each once, which are operator eigenvalues (a Gram matrix's
            over the number of its points); or the modes on data, whose points are then the population. Modes that are
            not listed (`spectrum.rest`) act as a ridge, which is right
            where each of them is far below κ.
        power: (r,), cᵢ², what of E[f*²] lies in the modes of each eigenvalue, summed over these. Several outputs: the
            mean over them, for errors in the units of `nn.MSELoss`. Single entries may be negative where they are
            unbiased estimates.
        n: how many training samples; several give a leading axis.
        ridge: δ, added to the Gram matrix's diagonal.
        noise: σ², the variance of noise in labels, those at new points included.
        off: what of E[f*²] lies off all modes, which no sample teaches: it acts as noise.

    Returns:
        A `Learnability`. Without a ridge and with more samples than modes, κ = 0; with just as many, the error is
        infinite. Within ten of the number of modes it warns (`PriorscopeWarning`): there the error is far from the
        formula, as it hangs on each sample (of 5 modes, n = 6: 0.46 for a measured 2.18).

    Source: Simon et al. 2023 (2110.03922); Canatar, Bordelon and Pehlevan 2021 (2006.13198). The corrections for a
    finite population are ours.

    >>> spectrum = OperatorSpectrum(torch.tensor([1.0, 0.1, 0.01]), torch.tensor([1.0, 8.0, 28.0]), 2.08)
    >>> learned = learnability(spectrum, torch.tensor([0.0, 1.0, 0.0]), n=16, ridge=0.05)
    >>> round(float(learned.conserved), 8)
    16.0
    >>> bool((learned.learnability.diff() < 0).all())  # simpler modes first
    True
    """
    if isinstance(spectrum, Spectrum):
        spectrum = operator_spectrum(spectrum)
    if isinstance(spectrum, Tensor):
        values = spectrum.detach().to(torch.float64)
        spectrum = OperatorSpectrum(values, torch.ones_like(values), float(values.sum()))
    share = power.detach().to(torch.float64)
    if share.shape != spectrum.values.shape or not bool(torch.isfinite(share).all()):
        cause = f"has shape {tuple(power.shape)} for {len(spectrum.values)} eigenvalues, or is not finite"
        raise DataError("power", cause, "Give one number for each eigenvalue")
    for name, value in (("ridge", ridge), ("noise", noise), ("off", off)):
        if not 0 <= value < inf:
            raise DataError(name, f"is {value}", "Give a finite number of at least 0")
    counts = [n] if isinstance(n, int) else list(n)
    _check_counts(counts, spectrum.population)
    if float(share.abs().sum()) + off + noise > 0:
        _warn_near_rank(spectrum, counts, ridge)
    parts = [_at(spectrum, share, number, ridge, noise, off) for number in counts]
    kappa, learned, error, bias = (torch.stack(column) for column in zip(*parts, strict=True))
    index = 0 if isinstance(n, int) else slice(None)
    return Learnability(
        n=torch.tensor(counts)[index],
        kappa=kappa[index],
        learnability=learned[index],
        error=error[index],
        bias=bias[index],
        variance=(error - bias - noise)[index],
        spectrum=spectrum,
        power=share,
        off=float(off),
        ridge=float(ridge),
        noise=float(noise),
    )


@takes_kernel_on_data
def learning_curve(
    kernel: GivenKernel, x: Inputs, y: Tensor, n: int | Sequence[int], ridge: float = 0.0
) -> Learnability:
    """The expected test error of kernel ridge regression on n of the given points, at the others, and what it learns.

    The data are the population: the eigenvalues are those of the Gram matrix over N, the target is y, and what of it
    lies off the modes acts as noise. Labels may be noisy: noise is part of y, spread over all modes.

    Args:
        kernel: a kernel, or `kernel.on(x)`. For kernels with coupled outputs this is the trace kernel.
        x: N points. The formula takes their modes as spread evenly over the points; where some points are unlike all
            others, as real images are, it is too low, the more so as n nears N: by 5 % on digits at N/n = 36 and 18,
            7 % at 9, 11 % at 3.6 (a two-layer ReLU NTK).
        y: (N,) or (N, o), or integer classes (N,).
        n: how many of the points are trained on, below N; several give a leading axis.
        ridge: δ, added to the Gram matrix's diagonal.

    Returns:
        A `Learnability`; errors are means over points and outputs, as of `nn.MSELoss`.

    Source: Simon et al. 2023 (2110.03922), section 4; see `learnability` for finite populations.

    >>> from priorscope.kernels import RBF
    >>> x = torch.linspace(0, 1, 40)[:, None]
    >>> curve = learning_curve(RBF(0.2), x, torch.sin(6 * x[:, 0]), n=[5, 10], ridge=1e-3)
    >>> bool(curve.error[1] < curve.error[0])
    True
    """
    data = check_kernel(kernel, "learning_curve").on(x)
    modes = eigenmodes(data)
    values = encode(y, count(x)).values
    power = (data.eigen.vectors[:, : data.eigen.rank].T @ values).square().mean(1) / len(values)
    off = max(0.0, float(values.square().mean() - power.sum()))
    return learnability(modes, power, n, ridge, off=off)


def _check_counts(counts: list[int], population: int | None) -> None:
    bad = [n for n in counts if n < 1 or (population is not None and n >= population)]
    if bad or not counts:
        least = "at least 1" if population is None else f"1 to {population - 1}, as there are {population} points"
        raise DataError("n", f"is {bad}", f"Give whole numbers of {least}")


def _warn_near_rank(spectrum: OperatorSpectrum, counts: list[int], ridge: float) -> None:
    """Least squares of r Gaussian modes errs like n/(n − r − 1), for which the formula has n/(n − r)."""
    rank, population = spectrum.rank, spectrum.population
    if ridge + spectrum.rest > 0 or (population is not None and rank >= population):
        return
    near = [n for n in counts if abs(n - rank) <= NEAR]
    if near:
        cause = f"learnability: n = {near} is within {NEAR} of the {rank:g} modes and there is no ridge: "
        warnings.warn(cause + "the error is not to be relied on there. Give ridge > 0", PriorscopeWarning, stacklevel=3)


def _at(
    spectrum: OperatorSpectrum, power: Tensor, n: int, ridge: float, noise: float, off: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """κ, learnabilities, error and bias at one n."""
    values, multiplicity = spectrum.values.to(torch.float64), spectrum.multiplicity.to(torch.float64)
    kappa = solve_kappa(spectrum, n, ridge)
    learned = torch.where(values > 0, values / (values + kappa), torch.zeros_like(values))
    first, second = float(multiplicity @ learned), float(multiplicity @ learned.square())
    unlearned = float((1 - learned).square() @ power) + off
    if spectrum.population is None:
        bottom, top, scale, white = n - second, float(n), 1.0, 1.0
    else:
        N = spectrum.population
        bottom, top = (N - n) * (n - second) + (n - first) ** 2, float(n * N)
        scale, white = (N / (N - first)) ** 2 if first < N else inf, 1 - (2 * first - second) / N
    overfitting = top / bottom if bottom > 1e-13 * top else inf
    error = overfitting * (unlearned + noise * white) if unlearned + noise > 0 else 0.0
    answer = (kappa, error, scale * unlearned)
    kappa_, error_, bias_ = (torch.tensor(value, dtype=torch.float64) for value in answer)
    return kappa_, learned, error_, bias_


def solve_kappa(spectrum: OperatorSpectrum, n: int, ridge: float) -> float:
    """κ with Σ L + (δ/κ)(1 − Σ L/N) = n, to rounding; 0 where there is no ridge and n reaches the number of modes."""
    values, multiplicity = spectrum.values.to(torch.float64), spectrum.multiplicity.to(torch.float64)
    shift = ridge + spectrum.rest
    if shift == 0 and spectrum.rank <= n:
        return 0.0

    def surplus(log_kappa: float) -> float:
        kappa = exp(log_kappa)
        learned = float(multiplicity @ (values / (values + kappa)))
        unseen = 1.0 if spectrum.population is None else 1 - learned / spectrum.population
        return learned + shift / kappa * unseen - n

    high = log((float(multiplicity @ values) + shift) / n) + 1e-9
    low = high - 1
    while surplus(low) < 0:
        low -= 2 * (high - low)
    return exp(brentq(surplus, low, high, xtol=1e-15, rtol=1e-15, maxiter=500))
