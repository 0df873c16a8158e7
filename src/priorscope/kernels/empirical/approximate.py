"""`ApproximateNTK`: the empirical kernel from random features, with an estimate of its error; only when asked for.

Both methods make features Φ (n, o, d) with Θ ≈ Φ Φᵀ, whose columns are drawn in strata, and the kernel is the sum over
columns of what each gives. So one formula serves the kernel of both, and another their errors.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import floor, sqrt
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from ...data.inputs import Inputs, check_inputs
from ...errors import DataError
from ...linalg.memory import check_memory
from ..kernel import Kernel
from .products import JacobianProducts

if TYPE_CHECKING:
    from .ntk import EmpiricalNTK


@dataclass(frozen=True)
class Stratum:
    """Columns that were drawn alike, from so many; None: from infinitely many."""

    columns: slice
    population: int | None

    @property
    def drawn(self) -> int:
        return self.columns.stop - self.columns.start

    @property
    def missing(self) -> float:
        """The share of the population that was not drawn."""
        return 1.0 if self.population is None else 1 - self.drawn / self.population


class ApproximateNTK(Kernel):
    """An empirical neural tangent kernel estimated from random features: unbiased, and with standard errors.

    - "projection": Θ ≈ (1/d) Σₘ aₘ aₘᵀ with aₘ = J √c rₘ, where the entries of rₘ are independent random signs
      (their variance is never above that of normal ones: 2 (‖A‖² − Σₖ Aₖₖ²) for an entry rᵀA r, against 2 ‖A‖²).
      One forward derivative for each direction.
    - "parameters": Θ ≈ Σₗ (pₗ/sₗ) Σ_{k∈Sₗ} cₗ Jₖ Jₖᵀ, where Sₗ are sₗ of the pₗ entries of parameter l, drawn without
      replacement, as many from each as is its share of all, and at least two. One backward pass for each point and
      output. All entries of all parameters give the exact kernel.

    All calls use the same directions, or entries: matrices of any points belong together, and are symmetric and
    positive semi-definite. They have the rank of the features, (d, or the number of entries) at most.

    Args:
        ntk: the exact kernel. Its rates, parameters, read-out and memory are those of the approximation.
        method: "projection" or "parameters".
        size: d, or the number of entries.
        seed: of the directions or entries. They are drawn again when needed, on the CPU, and are the same everywhere.

    Raises:
        DataError: an unknown method; a size below 1 or, for "parameters", outside what can be drawn.
        NotExactError, ModelError: as the exact kernel.
        MemoryBudgetError: the features, or one point's activations, do not fit into the exact kernel's `memory`.

    Source: Johnson and Lindenstrauss 1984; Park et al. 2023 (2303.14186, section 3: projected features of the NTK);
        random signs, Hutchinson 1989; strata, Cochran 1977, chapter 5.

    The error falls as 1/√size:

    >>> from priorscope import EmpiricalNTK
    >>> ntk, x = EmpiricalNTK(torch.nn.Linear(3, 1)), torch.randn(4, 3)
    >>> coarse, fine = (ntk.approximate("projection", size=s).standard_errors(x) for s in (1_000, 4_000))
    >>> bool(1.8 < (coarse / fine).median() < 2.2)
    True
    """

    coupled = True

    def __init__(self, ntk: "EmpiricalNTK", method: str, size: int, seed: int = 0):
        from .ntk import EmpiricalNTK

        if not isinstance(ntk, EmpiricalNTK):
            raise DataError("ntk", f"is a {type(ntk).__name__}", "Give an EmpiricalNTK")
        if method not in ("projection", "parameters"):
            raise DataError("method", f"is {method!r}", 'Give "projection" or "parameters"')
        for name, value, least in (("size", size, 1), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise DataError(name, f"is {value!r}", f"Give an integer of at least {least}")
        self.ntk, self.method, self.size, self.seed = ntk, method, size, seed
        self.origin = ntk.origin
        self._sizes = {name: ntk.snapshot.values[name].numel() for name in ntk.rates}
        self.strata = [Stratum(slice(0, size), None)] if method == "projection" else list(_strata(self._sizes, size))

    def matrix(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        first, second = self._features(x1, x2)
        product = torch.einsum("iad,jad->ij", first, second) / first.shape[1]
        return (product + product.T) / 2 if x2 is None else product

    def variances(self, x: Inputs) -> Tensor:
        features = self._features(x, None)[0]
        return features.square().sum((1, 2)) / features.shape[1]

    def tensor4(self, x1: Inputs, x2: Inputs | None) -> Tensor:
        first, second = self._features(x1, x2)
        product = first.flatten(0, 1) @ second.flatten(0, 1).T
        product = (product + product.T) / 2 if x2 is None else product
        return product.view(*first.shape[:2], *second.shape[:2])

    def outputs(self, x: Inputs) -> int:
        return self.ntk.outputs(x)

    def features(self, x: Inputs) -> Float[Tensor, "no d"]:
        """Φ, with Θ ≈ Φ Φᵀ: what the kernel is made of, for anything that is linear in features.

        Args:
            x: inputs, n points.

        Returns:
            (n·o, size), points first. The rates are in it.
        """
        return self._features(check_inputs(x), None)[0].flatten(0, 1)

    def standard_errors(self, x1: Inputs, x2: Inputs | None = None) -> Float[Tensor, "n1 n2"]:
        """The standard error of every entry of `kernel(x1, x2)`, estimated from the spread of the columns.

        σ² = Σ over strata of (1 − s/p) · s · (the sample variance of the s columns' contributions), p = ∞ for
        "projection". The square is unbiased. The errors of different entries are not independent.

        Args:
            x1, x2: inputs; None for x2 is the Gram matrix of x1.

        Returns:
            (n1, n2), in the unit of the kernel.

        Raises:
            DataError: one direction has no spread.
        """
        self._check(x1, x2)
        if self.method == "projection" and self.size == 1:
            raise DataError("size", "is 1, and one direction has no spread", "Give size=2 or more")
        first, second = self._features(x1, x2)
        total = first.new_zeros(len(first), len(second), dtype=torch.float64)
        for stratum in self.strata:
            if stratum.missing > 0:
                a, b = (f[:, :, stratum.columns].to(torch.float64) for f in (first, second))
                total += stratum.missing * stratum.drawn * _sample_variance(a, b)
        return total.sqrt().to(first.dtype)

    def _features(self, x1: Inputs, x2: Inputs | None) -> tuple[Float[Tensor, "n1 o d"], Float[Tensor, "n2 o d"]]:
        snapshot = self.ntk.snapshot
        names = tuple(self._sizes)
        with snapshot.installed(self.ntk.rates):
            sides = [
                JacobianProducts(snapshot, names, x, self.ntk.memory, backward_only=self.method == "parameters")
                for x in ((x1,) if x2 is None else (x1, x2))
            ]
            entries = sum(side.points * side.outputs for side in sides) * self.size
            check_memory(entries * torch.finfo(snapshot.dtype).bits // 8, "the random features", self.ntk.memory)
            make = self._projected if self.method == "projection" else self._chosen_entries
            features = [make(side) for side in sides]
        return features[0], features[-1]

    def _projected(self, side: JacobianProducts) -> Float[Tensor, "n o d"]:
        side.check_duality()
        result = self._empty(side)
        for m, column in enumerate(side.times_each(self._bar(self._directions(), self.size))):
            result[:, :, m] = column
        return result.div_(sqrt(self.size))

    def _directions(self) -> Iterator[dict[str, Tensor]]:
        """√c r, one after the other; only the seeds of all exist at once."""
        values = self.ntk.snapshot.values
        seeds = torch.randint(2**63 - 1, (self.size,), generator=torch.Generator().manual_seed(self.seed))
        for seed in seeds.tolist():
            generator = torch.Generator().manual_seed(seed)
            yield {
                name: (2 * torch.randint(2, values[name].shape, generator=generator, dtype=torch.int8) - 1)
                .to(values[name])
                .mul_(sqrt(rate))
                for name, rate in self.ntk.rates.items()
            }

    def _chosen_entries(self, side: JacobianProducts) -> Float[Tensor, "n o d"]:
        values, rates = self.ntk.snapshot.values, self.ntk.rates
        entries = {name: index.to(values[name].device) for name, index in self._entries()}
        weights = {name: sqrt(rates[name] * self._sizes[name] / len(index)) for name, index in entries.items()}
        result = self._empty(side)
        for i in self._bar(range(side.points), side.points):
            for a, row in enumerate(side.rows(i)):
                result[i, a] = torch.cat([row[n].flatten()[index] * weights[n] for n, index in entries.items()])
        return result

    def _entries(self) -> Iterator[tuple[str, Int[Tensor, " s"]]]:
        generator = Random(self.seed)
        for (name, size), stratum in zip(self._sizes.items(), self.strata, strict=True):
            # Python's own sample: no list of all entries.
            yield name, torch.tensor(sorted(generator.sample(range(size), stratum.drawn)))

    def _empty(self, side: JacobianProducts) -> Float[Tensor, "n o d"]:
        like = next(iter(self.ntk.snapshot.values.values()))
        shape = (side.points, side.outputs, self.size)
        return torch.empty(shape, dtype=self.ntk.snapshot.dtype, device=like.device)

    def _bar(self, items: Iterable, total: int) -> Iterator:
        bar = tqdm(items, desc=f"ntk by {self.method}", total=total, disable=not self.ntk.progress, leave=False)
        return iter(bar)

    def __repr__(self) -> str:
        what = "directions" if self.method == "projection" else f"of {sum(self._sizes.values())} parameter entries"
        return f"ApproximateNTK(an estimate by {self.method}, size={self.size} {what}, seed={self.seed})"


def _sample_variance(a: Float[Tensor, "n1 o s"], b: Float[Tensor, "n2 o s"]) -> Float[Tensor, "n1 n2"]:
    """The variance over columns s of y = (1/o) Σ_a Φ₁ Φ₂, without the (n1, n2, s) numbers y."""
    outputs, drawn = a.shape[1:]
    mean = torch.einsum("iad,jad->ij", a, b) / (outputs * drawn)
    squares = torch.zeros_like(mean)
    for p in range(outputs):
        for q in range(p + 1):
            products = (a[:, p] * a[:, q]) @ (b[:, p] * b[:, q]).T
            squares += products if p == q else 2 * products
    return ((squares / outputs**2 - drawn * mean.square()) / (drawn - 1)).clamp_min(0)


def _strata(sizes: dict[str, int], size: int) -> Iterator[Stratum]:
    """So many entries of each parameter: at least two of each (where it has them), the rest by its share."""
    total, least = sum(sizes.values()), sum(min(p, 2) for p in sizes.values())
    if not least <= size <= total:
        raise DataError(
            "size",
            f"is {size}, for {total} parameter entries in {len(sizes)} tensors",
            f"Give {least} (two of each tensor show a spread) to {total} (all: the exact kernel)",
        )
    free, open_ = size - least, total - least
    shares = {name: free * (p - min(p, 2)) / open_ if open_ else 0.0 for name, p in sizes.items()}
    counts = {name: min(p, 2) + floor(shares[name]) for name, p in sizes.items()}
    # What rounding down leaves goes to the largest remainders.
    by_remainder = sorted(sizes, key=lambda name: floor(shares[name]) - shares[name])
    for name in by_remainder[: size - sum(counts.values())]:
        counts[name] += 1
    start = 0
    for name, p in sizes.items():
        yield Stratum(slice(start, start + counts[name]), p)
        start += counts[name]
