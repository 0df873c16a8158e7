"""Recurrent networks: nn.RNN, whose weights are shared through time, so that different times are correlated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....network.weights import fan_in
from ..law import Law
from ..moments import Moments, Refused
from ..registry import Dual, Expectations, find, rule
from .coordinates import coordinates

FUNCTIONS: dict[str, Callable[..., Tensor]] = {"tanh": torch.tanh, "relu": torch.relu}


class _State(NamedTuple):
    """Moments of h between one time of the first point and times of the other: K, gap, Θ."""

    k: Tensor
    gap: Tensor
    tangent: Tensor


class _Linear(NamedTuple):
    """σ_w², σ_b², and fan_in times the rate of the weights, and the rate of the bias."""

    w: Any
    b: Any
    cw: Any
    cb: Any

    def of(self, state: _State) -> _State:
        """Moments of W h + b."""
        tangent = self.w * state.tangent + self.cw * state.k + self.cb
        return _State(self.w * state.k + self.b, self.w * state.gap, tangent)


@rule(nn.RNN)
def recurrent_network(layer: nn.RNN, m: Any, start: Any = None, *, init: Law) -> tuple[Moments, Any]:
    """h_t = φ(W x_t + b + U h_{t−1} + c), h_0 = 0: the covariance of what φ is applied to, between times t and t', is
    σ_w² K_x(t, t') + σ_b² + σ_u² K_h(t−1, t'−1) + σ_c², and Θ follows. Source: Yang 2019 (1910.12478); Yang 2020
    (2006.14548); Alemohammad et al. 2020 (2006.10246)."""
    if start is not None:
        raise Refused("is given a first hidden state", "Leave it out, so that it is 0")
    if not layer.batch_first:
        raise Refused("has the times as its first axis", "Use nn.RNN(..., batch_first=True)")
    if layer.training and layer.dropout > 0 and layer.num_layers > 1:
        raise Refused("draws dropout masks, because it is in training mode", "Call model.eval() first")
    m = coordinates(m, -1)
    if len(m.shape) != 2:
        raise Refused(f"is applied to points of shape {m.shape}", "Give points (times, features)")
    entry = find(FUNCTIONS[layer.nonlinearity])
    assert isinstance(entry, Dual)
    last: list[Moments] = []
    for depth in range(layer.num_layers):
        sides = []
        for reverse in ("", "_reverse")[: 1 + layer.bidirectional]:
            side = _through_time(layer, f"l{depth}{reverse}", m, entry, init)
            sides.append(side)
            last.append(_at(side, 0 if reverse else -1))
        m = sides[0] if len(sides) == 1 else _side_by_side(sides[0], sides[1])
    return m, tuple(last)


def _through_time(layer: nn.RNN, name: str, m: Moments, entry: Dual, init: Law) -> Moments:
    reads, keeps = (_linear(layer, f"{kind}_{name}", init) for kind in ("ih", "hh"))
    flipped = name.endswith("_reverse")
    if flipped:
        m = _flipped(m)
    v1, own1 = _variances(m.v1, reads, keeps, entry)
    v2, own2 = (v1, own1) if not m.between else _variances(m.v2, reads, keeps, entry)
    times, axis = m.v1.shape[-1], -2 if m.pairs else -1
    before: _State | None = None
    rows = []
    for t in range(times):
        state = reads.of(_State(*(values.select(axis, t) for values in (m.nngp, m.gap, m.tangent))))
        kept = keeps.of(_previous(before, state, *_ends(m, _delayed(own1), _delayed(own2), t), m.pairs))
        state = _State(*(a + b for a, b in zip(state, kept, strict=True)))
        (row, column), (end1, end2) = (_ends(m, a, b, t) for a, b in ((v1, v2), (own1, own2)))
        k, slope, gap = _expected(entry, state.k, row, column, state.gap)
        if gap is None:
            gap = ((end1 + end2) / 2 - k).clamp_min(0)
        before = _State(k, gap, state.tangent * slope)
        rows.append(before)
    k, gap, tangent = (torch.stack([row[i] for row in rows], axis) for i in range(3))
    if not m.between and not m.pairs:
        k, gap = own1, torch.zeros_like(own1)
    after = m.replace(
        nngp=k,
        gap=gap,
        tangent=tangent,
        v1=own1,
        v2=own2,
        deviation=None,
        own=None,
        layers=frozenset(init.name(_part(layer, f"{kind}_{name}", init)) for kind in ("ih", "hh")),
        gaussian=False,
        mean_zero=entry.odd,
        **m.moved(m.positions, layer.hidden_size),
    )
    return _flipped(after) if flipped else after


def _ends(m: Moments, v1: Tensor, v2: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """Variances at time t of the first points, and of the second at every time, or at the same, to broadcast."""
    row, column = v1[:, t], v2 if m.pairs else v2[:, t]
    row = row[..., None] if m.pairs else row
    return (row[:, None], column[None]) if m.between else (row, column)


def _delayed(v: Tensor) -> Tensor:
    """Variances of h at the time before: 0 before the first."""
    return torch.cat([torch.zeros_like(v[:, :1]), v[:, :-1]], 1)


def _previous(before: _State | None, like: _State, v1: Tensor, v2: Tensor, pairs: bool) -> _State:
    """h between the previous times, whose variances are v1 and v2: at the first time of either point it is 0."""
    nothing = torch.zeros_like(like.k)
    if before is None:
        return _State(nothing, (v1 + v2) / 2 + nothing, nothing)
    if not pairs:
        return before
    k, gap, tangent = (torch.cat([torch.zeros_like(x[..., :1]), x[..., :-1]], -1) for x in before)
    first = torch.arange(k.shape[-1], device=k.device) == 0
    return _State(k, torch.where(first, (v1 + v2) / 2, gap), tangent)


def _variances(v: Tensor, reads: _Linear, keeps: _Linear, entry: Dual) -> tuple[Tensor, Tensor]:
    """Variances of what φ is applied to, and of h, at each time."""
    inside, outside = [], []
    h = torch.zeros_like(v[:, 0])
    for t in range(v.shape[-1]):
        inside.append(reads.w * v[:, t] + reads.b + keeps.w * h + keeps.b)
        h = _expected(entry, inside[-1], inside[-1], inside[-1], torch.zeros_like(h))[0]
        outside.append(h)
    return torch.stack(inside, -1), torch.stack(outside, -1)


def _expected(entry: Dual, k: Tensor, v1: Tensor, v2: Tensor, gap: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """What the dual gives, in the layouts that every dual knows: (n1, n2) with (n1, 1) and (1, n2), or (n,)."""
    shape = k.shape
    if v1.shape[1:].numel() == 1 and v2.shape[:1] == (1,):
        size = (len(v1), v2.numel())
        k, gap, v1, v2 = k.reshape(size), gap.reshape(size), v1.reshape(-1, 1), v2.reshape(1, -1)
    else:
        k, gap, v1, v2 = (x.expand(shape).reshape(-1) for x in (k, gap, v1, v2))
    extra = {name: value for name, value in (("gap", gap), ("deviation", None)) if name in entry.wants}
    full = Expectations(*entry.function(k, v1, v2, **extra))
    after = None if full.gap is None else full.gap.reshape(shape)
    return full.nngp.reshape(shape), full.derivative.reshape(shape), after


def _part(layer: nn.RNN, name: str, init: Law) -> Any:
    return init.owner(getattr(layer, f"weight_{name}"))


def _linear(layer: nn.RNN, name: str, init: Law) -> _Linear:
    part = _part(layer, name, init)
    (w, b), (cw, cb) = init.variances(part), init.rates_of(part)
    return _Linear(w, b, cw * fan_in(part), cb)


def _flipped(m: Moments) -> Moments:
    def flip(x: Tensor, axes: int) -> Tensor:
        return x.flip(tuple(range(-axes, 0)))

    axes = 2 if m.pairs else 1
    changed = {name: flip(getattr(m, name), axes) for name in ("nngp", "gap", "tangent")}
    return m.replace(**changed, v1=flip(m.v1, 1), v2=flip(m.v2, 1), deviation=None, own=None)


def _side_by_side(a: Moments, b: Moments) -> Moments:
    """Both directions: their coordinates side by side."""
    changed = {name: (getattr(a, name) + getattr(b, name)) / 2 for name in ("nngp", "gap", "tangent", "v1", "v2")}
    size = 2 * a.shape[a.channel]
    return a.replace(**changed, **a.moved(a.positions, size), layers=a.layers | b.layers, alike=False)


def _at(m: Moments, t: int) -> Moments:
    """Moments at one time, as a vector's."""

    def at(x: Tensor) -> Tensor:
        return x[..., t, t] if m.pairs else x[..., t]

    changed = {name: at(getattr(m, name)) for name in ("nngp", "gap", "tangent")}
    return m.replace(
        **changed, v1=m.v1[..., t], v2=m.v2[..., t], pairs=False, own=None, shape=(m.shape[-1],), channel=0
    )


@rule(nn.LSTM, nn.GRU)
def gated_network(layer: nn.Module, *inputs: Any, init: Law) -> Moments:
    """Gates multiply the state by functions of itself, which this recursion does not cover. Source: Yang 2019
    (1910.12478) for the limit."""
    raise Refused("multiplies its state by gates, for which no rule is known", "Use nn.RNN, or EmpiricalNTK")


@rule(nn.RNNCell, nn.LSTMCell, nn.GRUCell)
def recurrent_cell(layer: nn.Module, *inputs: Any, init: Law) -> Moments:
    """One step of a network that shares its weights through time. Source: Yang 2019 (1910.12478)."""
    raise Refused("is one step of a recurrent network, whose steps share their weights", "Use nn.RNN, or EmpiricalNTK")
