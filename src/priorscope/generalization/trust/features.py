"""What a trust score is made of: numbers that are cheap, known before training, and the larger the less lazy it is.

Some networks are drawn and led along the course that their own kernel predicts, θ ← θ + c·Jᵀw in a few legs (`Modes`,
`led`): no loss is descended, and still the network bends as it would.

- bend: how far a led network is from its own linear prediction at the test points, as a share of the half-width of the
  ensemble's 99 % band; its 90 % quantile over outputs.
- escape: how far it is from the ensemble's mean, as the same share and quantile.
- spread: ‖K_network − Θ‖ / ‖Θ‖ at the start.
- travel: the predicted ‖Δθ‖ / ‖θ₀‖, ‖Δθ‖² = Σ λ φ² E(v·r)², r = Y − f₀, E r rᵀ = Y Yᵀ + K: √(rᵀΘ⁻¹r) at the end
  of the flow.
- slow modes: ‖Δθ‖² · (mean λ) / ‖Δf‖²: 1 where all that is learned lies in modes of middle speed.
- step: −log(1 − η/limit) at the networks' own step limit. momentum: −log(1 − β).
- points per unit: n / the narrowest hidden width.

All are logarithms (base 10), the median over the networks drawn.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from ...beliefs.gaussian import Gaussian
from ...data.inputs import Inputs, Labels, count, take
from ...kernels.empirical import EmpiricalNTK
from ...kernels.infinite.limit import Limit
from ...kernels.pair import KernelPair
from ...linalg.symmetric import decompose
from ...training.band import WRONG, half_widths
from ...training.drift import kernel_drift
from ...training.ensemble import TrainedEnsemble, trained_ensemble
from ...training.filters import weights_filter
from ...training.run import train
from ...training.training import Training
from .draws import Draw, drawn, widths

NETWORKS = 5
FEW = 128
"""Training points on which kernels of drawn networks are taken. Of more points, the limit's kernel stands in for the
own one where a network is led, and the own one is looked at on the first of them."""
TESTED = 64
"""Test points that are looked at."""
LEGS, GRID = 4, 40
"""Legs of a course, and moments among which their ends are chosen."""
MENDED = 0.1
"""What a leg missed is made up for in the next, in modes that are not much slower than this share of the mean λ."""
FAR = 300.0
"""Half-widths of the band: what is further off counts as this far."""
CLOSEST = 1e-3
"""A step is taken to be this share below its limit at most; beyond it, too."""


@dataclass(frozen=True, eq=False)
class Modes:
    """A kernel on the data by its modes: values (r,), vectors (n, r), and its rows at the test points, (m, n)."""

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "n r"]
    cross: Float[Tensor, "m n"]
    training: Training

    @classmethod
    def of(cls, gram: Float[Tensor, "n n"], cross: Float[Tensor, "m n"], training: Training) -> "Modes":
        eigen = decompose(gram.detach().to(torch.float64))
        rank = eigen.rank
        return cls(eigen.values[:rank], eigen.vectors[:, :rank], cross.detach().to(torch.float64), training)

    def filter(self, at: float, outputs: int) -> Float[Tensor, " r"]:
        return weights_filter(self.values, at, self.training, self.training.mean_scale(len(self.vectors), outputs))

    def weights(self, left: Float[Tensor, "n o"], at: float) -> Float[Tensor, "n o"]:
        """w = φ(K)(Y − f₀) at a time of the training: the linear network has moved by c·Jᵀw."""
        return (self.vectors * self.filter(at, left.shape[1])) @ (self.vectors.T @ left)

    def learned(self, weights: Float[Tensor, "n o"]) -> Float[Tensor, "n o"]:
        """K w at the data."""
        return (self.vectors * self.values) @ (self.vectors.T @ weights)

    def mended(self, missed: Float[Tensor, "n o"]) -> Float[Tensor, "n o"]:
        """The weights that make up for outputs which the data should have and have not, in modes not too slow."""
        filtered = self.filter(self.training.end, missed.shape[1]).clamp_min(0)
        damped = filtered / (1 + filtered * MENDED * self.values.mean())
        return (self.vectors * damped) @ (self.vectors.T @ missed)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the limit predicts of a training, and the parts that a score needs of it. x_new: of few test points."""

    pair: KernelPair
    limit: Limit
    y: Tensor
    x_new: Inputs
    training: Training
    ensemble: TrainedEnsemble

    @classmethod
    def of(cls, pair: KernelPair, y: Tensor, x_new: Inputs, training: Training) -> "Prediction":
        """pair: of `infinite_width`, on its data."""
        assert isinstance(pair.joint, Limit)
        some = take(x_new, slice(None, None, math.ceil(count(x_new) / TESTED)))
        ensemble = trained_ensemble(pair, pair.x, y, training)
        assert isinstance(ensemble, TrainedEnsemble)  # of a squared loss
        return cls(pair, pair.joint, y, some, training, ensemble)

    @property
    def x(self) -> Inputs:
        return self.pair.x

    @property
    def labels(self) -> Labels:
        return self.ensemble.labels

    @cached_property
    def law(self) -> Gaussian:
        return self.ensemble(self.x_new)

    @cached_property
    def mean(self) -> Float[Tensor, "m o"]:
        return self.law.mean.to(torch.float64).reshape(count(self.x_new), -1)

    def gap(self, difference: Float[Tensor, "m o"]) -> float:
        """The 90 % quantile over test outputs of |difference| as a share of the band."""
        if not bool(torch.isfinite(difference).all()):
            return math.inf
        band = half_widths(self.law).reshape(difference.shape).clamp_min(torch.finfo(torch.float32).tiny)
        return min(float((difference.abs() / band).flatten().quantile(1 - WRONG)), FAR)

    @cached_property
    def modes(self) -> Modes:
        """Those of Θ."""
        ntk = self.pair.ntk.on(self.x)
        return Modes.of(ntk.gram, ntk.cross(self.x_new), self.training)

    def lengths(self, at: float) -> tuple[float, float]:
        """The predicted ‖c^(−1/2)Δθ‖² and ‖Δf‖² at the data, in the mean over starts."""
        values, learned = self.modes.values, self.modes.filter(at, self.labels.outputs).square() * self._seen
        return float((values * learned).sum()), float((values.square() * learned).sum())

    @cached_property
    def _seen(self) -> Float[Tensor, " r"]:
        """E (v·r)² of each mode, over starts, summed over outputs."""
        vectors, prior = self.modes.vectors, self.pair.nngp.on(self.x).gram
        of_starts = (vectors * (prior @ vectors)).sum(0).clamp_min(0)
        return (vectors.T @ self.labels.values).square().sum(1) + self.labels.outputs * of_starts

    @cached_property
    def legs(self) -> list[float]:
        """The moments at which the predicted ‖Δθ‖ first reaches each of `LEGS` equal parts of its end; the end."""
        values, end = self.modes.values, self.training.end
        if self.training.is_flow:
            low, high = 0.03 / float(values[0]), min(end, 30 / float(values[-1]))
            times = [t for t in torch.logspace(math.log10(low), math.log10(max(low, high)), GRID).tolist() if t < end]
        else:
            spaced = torch.logspace(0, math.log10(max(end, 1)), GRID).tolist()
            times = sorted({min(int(end), round(t)) for t in spaced})
        lengths = [self.lengths(t)[0] ** 0.5 for t in times]
        parts = [self.lengths(end)[0] ** 0.5 * k / LEGS for k in range(1, LEGS)]
        firsts = [next((t for t, far in zip(times, lengths, strict=True) if far >= part), end) for part in parts]
        return [*firsts, end]


def features(prediction: Prediction, networks: int = NETWORKS, seed: int = 0) -> dict[str, float]:
    """The features by name; infinite where a predicted course is not finite."""
    p = prediction
    draws = list(drawn(p.limit, networks, seed))
    few = p.x if count(p.x) <= FEW else take(p.x, slice(FEW))
    theta = p.pair.ntk.on(p.x).gram[:FEW, :FEW]
    kernels = [_kernel(draw)(few).to(torch.float64) for draw in draws]
    gaps = [_gaps(p, draw, own_modes(p, draw, gram)) for draw, gram in zip(draws, kernels, strict=True)]
    largest = float(torch.linalg.eigvalsh(theta)[-1])
    travel, moved = p.lengths(p.training.end)
    return {
        "bend": _log(_median([bend for bend, _ in gaps])),
        "escape": _log(_median([escape for _, escape in gaps])),
        "spread": _log(_median([float((k - theta).norm() / theta.norm()) for k in kernels])),
        "travel": _log(math.sqrt(travel) / _median([draw.norm for draw in draws])),
        "slow modes": _log(travel * float(p.modes.values.mean()) / moved) if moved > 0 else 0.0,
        "step": _step(p, _median([float(torch.linalg.eigvalsh(k)[-1]) / largest for k in kernels])),
        "momentum": -math.log10(1 - p.training.momentum),
        "points per unit": math.log10(count(p.x) / min(widths(p.limit.model), default=1)),
    }


def measured(prediction: Prediction, steps: int, seed: int = 0) -> dict[str, float]:
    """What so many steps of a real training show: how the kernel of one drawn network moves, how far it is off.

    turn: ‖K₁ − K₀‖ / ‖K₀‖ over the learned share of the loss. course: its gap to its own prediction at that step.
    """
    p = prediction
    (draw,) = drawn(p.limit, 1, seed)
    run = train(draw.model, p.x, p.y, _shortened(p.training, steps), p.limit.law.rates, p.x_new, at=[0])
    if run.diverged_at is not None or run.model is None:
        return {"turn": math.inf, "course": math.inf}
    few = take(p.x, slice(FEW))
    change = kernel_drift(_kernel(draw), _kernel(replace(draw, model=run.model)), few)
    learned = max(1 - float(run.losses[-1] / run.losses[0]), 1e-2)
    modes = own_modes(p, draw, _kernel(draw)(few))
    predicted = modes.cross @ modes.weights(p.labels.values - draw.outputs(p.x), int(run.steps[-1]))
    outputs = run.outputs.to(torch.float64)
    return {"turn": _log(change.relative / learned), "course": _log(p.gap(outputs[-1] - outputs[0] - predicted))}


def own_modes(p: Prediction, draw: Draw, gram: Tensor) -> Modes:
    """Of the network's own kernel, its Gram matrix given; of Θ where there are many points."""
    if count(p.x) > FEW:
        return p.modes
    modes = Modes.of(gram, _kernel(draw)(p.x_new, p.x), p.training)
    # Networks beyond their own step limit come to lie below it (Lewkowycz et al. 2020): no filter diverges for them.
    return replace(modes, values=modes.values.clamp_max(float(p.modes.values[0])))


def led(p: Prediction, draw: Draw, modes: Modes) -> Draw:
    """The network at the end of its predicted course; each leg also mends what the one before has missed."""
    start = draw.outputs(p.x)
    before, expected = torch.zeros_like(start), start
    for at in p.legs:
        weights = modes.weights(p.labels.values - start, at)
        step = weights - before + modes.mended(expected - draw.outputs(p.x))
        if not bool(torch.isfinite(step).all()):
            return draw.moved(p.x, step)
        draw, before, expected = draw.moved(p.x, step), weights, start + modes.learned(weights)
    return draw


def _gaps(p: Prediction, draw: Draw, modes: Modes) -> tuple[float, float]:
    """How far a led network is from its own linear prediction, and from the ensemble's mean."""
    weights = modes.weights(p.labels.values - draw.outputs(p.x), p.training.end)
    found = led(p, draw, modes).outputs(p.x_new)
    return p.gap(found - draw.outputs(p.x_new) - modes.cross @ weights), p.gap(found - p.mean)


def _shortened(training: Training, steps: int) -> Training:
    if training.schedule is None:
        return replace(training, steps=steps)
    return replace(training, steps=steps, learning_rate=training.schedule[:steps])


def _kernel(draw: Draw) -> EmpiricalNTK:
    return EmpiricalNTK(draw.model, rates=draw.limit.law.rates, readout=draw.limit.readout)


def _step(p: Prediction, stiffer: float) -> float:
    """−log(1 − η/limit), at the limit of networks whose largest eigenvalue is so many times that of Θ; 0 for the flow.

    Source: Lewkowycz et al. 2020 (2003.02218), for networks trained with steps near and beyond the limit.
    """
    if p.training.is_flow:
        return 0.0
    share = p.training.largest_rate * max(1.0, stiffer) / p.ensemble.step_limit
    return -math.log10(max(1 - share, CLOSEST))


def _median(values: Sequence[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).median())


def _log(value: float) -> float:
    return math.log10(max(value, 1e-12)) if math.isfinite(value) else math.inf
