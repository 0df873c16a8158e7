"""Recurrent networks: fused layers with every option, and cells unrolled by hand."""

from typing import Any

import torch
from torch import Tensor, nn

from .case import Awkward, Net, floats

WIDTH, LENGTH = 3, 3
POINTS = floats(LENGTH, 2)


def fused(kind: type[nn.Module], name: str, **options: Any) -> Awkward:
    """All steps of the output and the last state."""

    def rule(m, x: Tensor) -> Tensor:
        out, state = m.rnn(m.first(x))
        state = state[0] if isinstance(state, tuple) else state
        return m.last(torch.cat([out.flatten(1), state.transpose(0, 1).flatten(1)], 1))

    def make() -> nn.Module:
        rnn = kind(2, WIDTH, batch_first=True, **options)
        out, state = rnn(torch.randn(1, LENGTH, 2))
        width = out.numel() + (state[0] if isinstance(state, tuple) else state).numel()
        return Net(rule, first=nn.Linear(2, 2), rnn=rnn, last=nn.Linear(width, 2))

    return Awkward(f"{kind.__name__}, {name}", make, POINTS)


def time_first(kind: type[nn.Module]) -> Awkward:
    return Awkward(
        f"{kind.__name__}, time first",
        lambda: Net(lambda m, x: m.last(m.rnn(x.transpose(0, 1))[0][-1]), rnn=kind(2, WIDTH), last=nn.Linear(WIDTH, 2)),
        POINTS,
    )


def started(kind: type[nn.Module]) -> Awkward:
    """The initial state is an input for one half and a bare parameter for the other."""

    def rule(m, x: Tensor, h: Tensor) -> Tensor:
        state = (h[None] + m.start.expand(1, len(x), -1)).contiguous()
        return m.last(m.rnn(x, (state, state.tanh()) if kind is nn.LSTM else state)[0].flatten(1))

    return Awkward(
        f"{kind.__name__}, given states",
        lambda: Net(
            rule,
            rnn=kind(2, WIDTH, batch_first=True),
            start=torch.randn(1, 1, WIDTH),
            last=nn.Linear(WIDTH * LENGTH, 2),
        ),
        lambda n: (torch.randn(n, LENGTH, 2), torch.randn(n, WIDTH)),
    )


def cell(kind: type[nn.Module], **options: Any) -> Awkward:
    def rule(m, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = m.cell(step, state)
        return m.last(state[0] if isinstance(state, tuple) else state)

    return Awkward(
        f"{kind.__name__} by hand{', ' + str(options) if options else ''}",
        lambda: Net(rule, cell=kind(2, WIDTH, **options), last=nn.Linear(WIDTH, 2)),
        POINTS,
    )


RECURRENT = [
    *(
        fused(kind, name, **options)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for name, options in (
            ("plain", {}),
            ("two layers", {"num_layers": 2}),
            ("both directions", {"bidirectional": True}),
            ("without bias", {"bias": False}),
            ("two layers, both directions, without bias", {"num_layers": 2, "bidirectional": True, "bias": False}),
        )
    ),
    fused(nn.RNN, "relu", nonlinearity="relu"),
    fused(nn.LSTM, "projected", proj_size=2),
    fused(nn.LSTM, "projected, two layers, both directions", proj_size=2, num_layers=2, bidirectional=True),
    *(time_first(kind) for kind in (nn.RNN, nn.GRU, nn.LSTM)),
    *(started(kind) for kind in (nn.RNN, nn.GRU, nn.LSTM)),
    *(cell(kind) for kind in (nn.RNNCell, nn.GRUCell, nn.LSTMCell)),
    cell(nn.RNNCell, nonlinearity="relu", bias=False),
]
