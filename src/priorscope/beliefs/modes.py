"""The eigenmodes of a kernel on data: what a network likes, and the log-prior as a sum over them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.inputs import Inputs, count, encode
from ..errors import DataError, SingularKernelError
from ..kernels.frozen import takes_kernel_on_data
from ..results import Result, live
from .coupling import GivenKernel, check_kernel, restored


@dataclass(frozen=True, eq=False)
class Spectrum(Result):
    """The modes of a Gram matrix, K = Σ λᵢ vᵢ vᵢᵀ.

    Args:
        values: (r,), eigenvalues of the Gram matrix, descending. Those of the integral operator under the data's
            density are about values / n.
        vectors: (n, r), unit columns.
        fingerprint: (p, n), by which it knows its kernel again.
        dropped: how many modes were under the rank tolerance (what rounding leaves of zero), and left out.
        cut: how many more were left out by request (`rank=`).
        kernel: the kernel on its data. It is not saved: give it when loading, to extend the modes.
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "n r"]
    fingerprint: Float[Tensor, "p n"]
    dropped: int
    cut: int = 0
    kernel: GivenKernel = live()

    def power(self, y: Tensor) -> Float[Tensor, " r"]:
        """The share of the target in each mode, (vᵢ·y)² / ‖y‖², summed over outputs; y is not centred.

        Args:
            y: (n,) or (n, o), or integer classes (n,).

        Returns:
            (r,). What is missing to a sum of 1 lies off the modes.
        """
        labels = encode(y, len(self.vectors))
        size = labels.values.square().sum()
        if size == 0:
            raise DataError("y", "is zero everywhere, so it has no share in any mode", "Give a target that is not zero")
        return (self._squares(labels.values) / size).to(labels.dtype)

    def log_prior_terms(self, y: Tensor) -> Float[Tensor, " r"]:
        """What each mode adds to the log-prior: −½ (vᵢ·y)²/λᵢ − ½ log λᵢ − ½ log 2π, summed over outputs.

        Args:
            y: (n,) or (n, o), or integer classes (n,).

        Returns:
            (r,). Their sum is `log_prob(y)`, where no mode is missing.
        """
        labels = encode(y, len(self.vectors))
        values = self.values.to(torch.float64)
        normaliser = labels.outputs * (values.log() + math.log(2 * math.pi))
        return (-(self._squares(labels.values) / values + normaliser) / 2).to(labels.dtype)

    def log_prob(self, y: Tensor) -> Float[Tensor, ""]:
        """The log-density of labels under N(0, K): −½ Σ (vᵢ·y)²/λᵢ − ½ Σ log λᵢ − (n/2) log 2π.

        Args:
            y: (n,) or (n, o), or integer classes (n,). Outputs are independent.

        Raises:
            SingularKernelError: where modes are missing: the kernel is singular, or `rank=` cut them.

        Source: Rasmussen and Williams 2006, eq. 2.30, in the basis of the modes.
        """
        n, r = self.vectors.shape
        if self.dropped:
            raise SingularKernelError(
                "log_prob",
                f"the kernel has rank {n - self.dropped} on {n} points, so there is no density",
                "Use probabilities (GaussianProcess(kernel).prior(x).probability), or noise > 0",
            )
        if self.cut:
            cause = f"rank={r} cut {self.cut} of {n} modes, so the density is incomplete"
            raise SingularKernelError("log_prob", cause, "Call eigenmodes without rank=")
        return self.log_prior_terms(y).sum()

    def extend(self, x_new: Inputs) -> Float[Tensor, "m r"]:
        """The modes off the data, K(x_new, X) vᵢ / λᵢ; at the data they are the vectors themselves.

        Args:
            x_new: m points.

        Raises:
            DataError: for modes loaded from a file without their kernel, or with another one.

        Source: Williams and Seeger 2001 (the Nyström extension).
        """
        remedy = "Give it: Spectrum.load(path, kernel=kernel.on(x))"
        kernel = restored(self.kernel, self.fingerprint, "Spectrum", remedy)
        values, vectors = self.values.to(torch.float64), self.vectors.to(torch.float64)
        return (kernel.cross(x_new) @ vectors / values).to(self.values.dtype)

    def _squares(self, y: Float[Tensor, "n o"]) -> Float[Tensor, " r"]:
        return (self.vectors.to(torch.float64).T @ y).square().sum(1)


@takes_kernel_on_data
def eigenmodes(kernel: GivenKernel, x: Inputs, rank: int | None = None) -> Spectrum:
    """The modes of the kernel's Gram matrix on x, most liked first.

    K v = λ v. For kernels with coupled outputs this is the trace kernel.

    Args:
        kernel: a kernel, or `kernel.on(x)`.
        x: n points.
        rank: at most so many modes; None for all above the rank tolerance.

    Returns:
        A `Spectrum`, in the kernel's dtype.

    >>> from priorscope.kernels import RBF
    >>> x = torch.linspace(0, 1, 5)[:, None]
    >>> modes = eigenmodes(RBF(0.3), x)
    >>> bool(torch.isclose(modes.values.sum(), torch.tensor(5.0)))  # the trace
    True
    """
    data = check_kernel(kernel, "eigenmodes").on(x)
    n = count(x)
    if rank is not None and not 1 <= rank <= n:
        raise DataError("rank", f"is {rank} for {n} points", f"Give 1 to {n}, or None")
    eigen, dtype = data.eigen, data(data.x).dtype
    r = eigen.rank if rank is None else min(rank, eigen.rank)
    values, vectors = eigen.values[:r].to(dtype), eigen.vectors[:, :r].to(dtype)
    return Spectrum(values, vectors, data.fingerprint, dropped=n - eigen.rank, cut=eigen.rank - r, kernel=data)


class Sinusoids(NamedTuple):
    """How well one sinusoid explains each mode, and which: R² and angular frequency ω (radians per unit of x)."""

    r2: Float[Tensor, "*r"]
    frequency: Float[Tensor, "*r"]


def sinusoid_r2(x: Tensor, mode: Tensor) -> Sinusoids:
    """R² of each mode to its best sinusoid a·sin(ωx) + b·cos(ωx) + c, over a, b, c and ω.

    ω ranges from a quarter of a period over the data to the Nyquist frequency of n even points. A constant mode is
    explained fully (by c): R² = 1, ω = 0.

    Args:
        x: (n,) or (n, 1), positions; n ≥ 5, not all equal.
        mode: (n,), or (n, r) for r modes (the vectors of a `Spectrum`).

    Returns:
        (r2, frequency), each a scalar for one mode, (r,) for several.

    >>> x = torch.linspace(-3, 3, 50)
    >>> r2, frequency = sinusoid_r2(x, torch.sin(2 * x + 1))
    >>> round(float(r2), 6), round(float(frequency), 3)
    (1.0, 2.0)
    """
    position = x.detach().to(torch.float64).reshape(-1)
    n = len(x)
    if len(position) != n or len(mode) != n or mode.ndim not in (1, 2):
        cause = f"x has shape {tuple(x.shape)}, mode {tuple(mode.shape)}"
        raise DataError("sinusoid_r2", cause, "Give positions (n,) or (n, 1) and modes (n,) or (n, r)")
    length = float(position.max() - position.min()) if n else 0.0
    if n < 5 or length == 0:
        raise DataError("x", f"has {n} positions over a length of {length:g}", "Give at least 5, not all equal")
    modes = mode.detach().to(torch.float64).reshape(n, -1)
    size = modes.square().sum(0)
    total = (modes - modes.mean(0)).square().sum(0)
    lowest, highest = math.pi / (2 * length), math.pi * (n - 1) / length
    # R² has peaks of width about π/length in ω, so steps an eighth of that cannot miss the highest one.
    step = torch.full_like(total, math.pi / (8 * length))
    grid = torch.arange(lowest, highest + float(step[0]), float(step[0]), dtype=torch.float64, device=modes.device)
    grid = grid.clamp(max=highest)
    best = grid[_explained(position, modes, grid).argmax(0)]
    for _ in range(6):
        around = torch.linspace(-1, 1, 17).to(modes)
        near = (best + step * around[:, None]).clamp(lowest, highest)
        fits = torch.stack([_explained(position, modes[:, [i]], near[:, i])[:, 0] for i in range(len(best))], 1)
        best, step = near.gather(0, fits.argmax(0)[None])[0], step / 8
    r2 = torch.stack([_explained(position, modes[:, [i]], best[[i]])[0, 0] for i in range(len(best))]) / total
    constant = total <= 1e-24 * size
    r2 = torch.where(constant, 1.0, r2.clamp(0, 1))
    frequency = torch.where(constant, 0.0, best)
    shape = mode.shape[1:]
    return Sinusoids(r2.reshape(shape).to(mode.dtype), frequency.reshape(shape).to(mode.dtype))


def _explained(
    x: Float[Tensor, " n"], modes: Float[Tensor, "n r"], frequencies: Float[Tensor, " g"]
) -> Float[Tensor, "g r"]:
    """The sum of squares about the mean that the best a·sin(ωx) + b·cos(ωx) + c explains, for each ω."""
    x = x - (x.max() + x.min()) / 2
    centred = modes - modes.mean(0)
    rows = []
    for some in frequencies.split(max(1, 2**20 // len(x))):
        waves = torch.stack([torch.sin(some[:, None] * x), torch.cos(some[:, None] * x)], 2)
        # One of the two waves may vanish on the grid (at its Nyquist frequency): QR would keep rounding as a direction.
        basis, sizes, _ = torch.linalg.svd(waves - waves.mean(1, keepdim=True), full_matrices=False)
        kept = sizes > 1e-10 * len(x) ** 0.5
        rows.append(((basis.transpose(1, 2) @ centred) * kept[:, :, None]).square().sum(1))
    return torch.cat(rows)
