"""Recurrent layers step by step, so that every use of their weights is one linear call that can be tapped.

The fused kernels hide the uses and do not run under vmap. Each function takes what torch's own takes, and gives the
same. Source: torch.nn.RNN, GRU and LSTM, whose docstrings print the equations.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

State = tuple[Tensor, ...]
Step = Callable[[Tensor, Tensor, State], State]


def _tanh(gates: Tensor, hidden: Tensor, state: State) -> State:
    return ((gates + hidden).tanh(),)


def _relu(gates: Tensor, hidden: Tensor, state: State) -> State:
    return ((gates + hidden).relu(),)


def _gru(gates: Tensor, hidden: Tensor, state: State) -> State:
    (ar, az, an), (br, bz, bn) = gates.chunk(3, -1), hidden.chunk(3, -1)
    z = (az + bz).sigmoid()
    return ((1 - z) * (an + (ar + br).sigmoid() * bn).tanh() + z * state[0],)


def _lstm(gates: Tensor, hidden: Tensor, state: State) -> State:
    i, f, g, o = (gates + hidden).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


LAYERS: dict[Any, Step] = {torch.lstm: _lstm, torch.gru: _gru, torch.rnn_tanh: _tanh, torch.rnn_relu: _relu}
CELLS: dict[Any, Step] = {
    torch.lstm_cell: _lstm,
    torch.gru_cell: _gru,
    torch.rnn_tanh_cell: _tanh,
    torch.rnn_relu_cell: _relu,
}


def opens(function: Any, args: Sequence[Any]) -> bool:
    """Whether the call is one that `run` can step: packed sequences, which have other arguments, are not."""
    return (function in LAYERS and len(args) == 9 and isinstance(args[3], bool)) or (
        function in CELLS and len(args) >= 4
    )


def run(function: Any, args: Sequence[Any]) -> Any:
    """What torch's function returns, by steps."""
    if function in CELLS:
        x, state, w_in, w_hidden, b_in, b_hidden = (*args, None, None)[:6]
        states = tuple(state) if function is torch.lstm_cell else (state,)
        new = CELLS[function](linear(x, w_in, b_in), linear(states[0], w_hidden, b_hidden), states)
        return new if function is torch.lstm_cell else new[0]
    return _layers(function, *args)


def _layers(
    function: Any,
    x: Tensor,
    initial: Any,
    weights: Sequence[Tensor],
    biased: bool,
    layers: int,
    dropout: float,
    training: bool,
    bidirectional: bool,
    batch_first: bool,
) -> Any:
    x = x.transpose(0, 1) if batch_first else x
    starts = tuple(initial) if function is torch.lstm else (initial,)
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    ends: list[State] = []
    for layer in range(layers):
        sides = []
        for side in range(directions):
            index = layer * directions + side
            own = weights[index * each : (index + 1) * each]
            outputs, end = _direction(LAYERS[function], x, tuple(s[index] for s in starts), own, biased, side == 1)
            sides.append(outputs)
            ends.append(end)
        x = torch.cat(sides, -1)
    out = x.transpose(0, 1) if batch_first else x
    return out, *(torch.stack(parts) for parts in zip(*ends, strict=True))


def _direction(
    step: Step, x: Tensor, state: State, weights: Sequence[Tensor], biased: bool, backwards: bool
) -> tuple[Tensor, State]:
    w_in, w_hidden = weights[:2]
    b_in, b_hidden = weights[2:4] if biased else (None, None)
    project = weights[-1] if len(weights) in (3, 5) else None
    gates, outputs = linear(x, w_in, b_in), []
    times = range(len(x))
    for t in reversed(times) if backwards else times:
        new = step(gates[t], linear(state[0], w_hidden, b_hidden), state)
        state = new if project is None else (linear(new[0], project), *new[1:])
        outputs.append(state[0])
    return torch.stack(outputs[::-1] if backwards else outputs), state
