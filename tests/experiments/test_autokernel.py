"""autokernel: its cases are the committed ones, its statistics see wrong laws, and it says what it measured."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from priorscope.experiments import autokernel
from priorscope.experiments.layers import ROWS, Row
from priorscope.network.initialization import Initialization
from tests.oracles import ntk_by_loop

ROOT = Path(__file__).parents[2]
SMALL = {"widths": (8, 16, 32), "networks": 40}


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "autokernel.json").read_text()) == autokernel.cases()


def test_drawn_kernels_are_those_of_the_loop():
    row = next(row for row in ROWS if row.layer == "nn.LayerNorm")
    found = autokernel.samples(row, 8, 1, 5)
    model, x = row.make(8), autokernel.points(row.shape)
    with pytest.warns(UserWarning, match="no law"):
        Initialization(1.8, 0.2).apply_(model, 5)
    rates = autokernel.rates_of(model, Initialization(1.8, 0.2, "ntk"))
    rows, columns = torch.triu_indices(3, 3)
    torch.testing.assert_close(found["ntk, ntk"][0], ntk_by_loop(model, x, x, rates)[rows, 0, columns, 0])
    h = model[:3](x).detach()
    torch.testing.assert_close(found["nngp"][0], (1.8 * h @ h.T / 8 + 0.2)[rows, columns])


def test_a_row_is_measured_and_drawn():
    rows = tuple(row for row in ROWS if row.layer in ("nn.ReLU", "global average"))
    outcome = autokernel.measure(rows, SMALL, 0)
    assert len(outcome.criteria) == 2 * (3 + 1)
    assert all(c.holds for c in outcome.criteria if "deviation" in c.name)
    slopes = [kind["slope"] for row in outcome.numbers["rows"].values() for kind in row["kinds"].values()]
    assert all(-1.2 < slope < -0.3 for slope in slopes)
    assert "Cho and Saul" in outcome.notes[0]
    assert len(autokernel.draw(outcome).axes) == 3
    outcome.to_dict()


def test_it_refutes_gains_taken_as_an_independent_mean(monkeypatch):
    """Θ·E[φ'φ'] for the part of a gain, which acts on the very coordinate that φ is applied to."""
    row = Row(
        "",
        "nn.LayerNorm",
        nn.LayerNorm,
        lambda w: nn.Sequential(nn.Linear(3, w), nn.LayerNorm(w), nn.Tanh(), nn.Linear(w, 1)),
    )
    right = autokernel.measure((row,), SMALL, 0).numbers["rows"]["nn.LayerNorm"]["kinds"]["ntk, ntk"]
    assert right["at_wide"] <= right["threshold"]
    monkeypatch.setattr(
        "priorscope.kernels.infinite.propagate.through", lambda m, after, *rest: after.replace(gains=0.0)
    )
    wrong = autokernel.measure((row,), SMALL, 0).numbers["rows"]["nn.LayerNorm"]["kinds"]["ntk, ntk"]
    assert wrong["at_wide"] > wrong["threshold"]
