"""autokernel: its cases are the committed ones, its statistics see wrong laws, and it says what it measured."""

import ast
import functools
import inspect
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from priorscope.experiments import autokernel
from priorscope.experiments.layers import ROWS, SEVERAL, Row
from priorscope.kernels.infinite.registry import RULES
from priorscope.network.initialization import Initialization
from tests.oracles import ntk_by_loop
from tests.statistics import BootstrappedMean

ROOT = Path(__file__).parents[2]
SMALL = {"widths": (8, 16, 32), "networks": 40}


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "autokernel.json").read_text()) == autokernel.cases()


def test_drawn_kernels_are_those_of_the_loop():
    row = next(row for row in ROWS if row.layer == "nn.LayerNorm")
    found = autokernel.samples(row, 8, 1, 5)
    model, x = row.make(8), autokernel.points(row)
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


def test_entries_that_all_networks_have_alike_are_compared_exactly():
    samples = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    samples[:, 1] = 0.3
    mean = BootstrappedMean.of(samples, 500, seed=0)
    without = BootstrappedMean.of(samples[:, [0, 2]], 500, seed=0)
    law = torch.tensor([0.1, 0.3, 0.0])
    assert mean.quantile == pytest.approx(without.quantile)
    assert mean.statistic(law) == pytest.approx(without.statistic(law[[0, 2]]))
    assert mean.statistic(law + torch.tensor([0.0, 1e-6, 0.0])) == float("inf")
    assert BootstrappedMean.of(samples[:, 1:2], 500, seed=0).statistic(law[1:2]) == 0


def test_rows_are_told_apart_by_their_names():
    files = {autokernel._file(row, (8, 16), 40, 0) for row in ROWS}
    assert len(files) == len({row.layer for row in ROWS}) == len(ROWS)


def always_refuses(entry):
    """Rules that say why there is none: their bodies begin by raising."""
    body = ast.parse(textwrap.dedent(inspect.getsource(entry.function))).body[0].body
    return isinstance(body[1], ast.Raise)


FUSED_ONLY = {"negation", "copy", "identity", "dropout", "dropout function"}
"""Pointwise, so that they are parts of activations, or next to linear layers parts of nothing."""
ESTIMATED = {"multihead attention, heads → ∞"}
"""Itself sampled, so that its error is no sampling error of networks: tests/kernels/infinite/test_attention.py."""


@pytest.mark.slow
def test_every_rule_has_a_row(monkeypatch):
    """All rules and duals that rows call, against all that there are."""
    used = set()

    def watched(entry):
        @functools.wraps(entry.function)
        def call(*arguments, **keywords):
            used.add(entry.name)
            return entry.function(*arguments, **keywords)

        return replace(entry, function=call)

    def is_ours(key, entry):
        """Not one that another test registered: its maker may be ours (@kernel_map), its module is the test's own."""
        modules = (entry.function.__module__, getattr(key, "__module__", None) or "")
        return modules[0].startswith("priorscope.") and not modules[1].startswith("tests.")

    ours = {key: entry for key, entry in RULES.items() if is_ours(key, entry)}
    for key, entry in ours.items():
        monkeypatch.setitem(RULES, key, watched(entry))
    for row in (row for row in ROWS if row.family != SEVERAL):  # which no rule of the registry is for, and is slow
        autokernel.limits(row, 16, autokernel.LAW, ("ntk",))
    expected = {entry.name for entry in ours.values() if not always_refuses(entry)}
    assert expected - used <= FUSED_ONLY | ESTIMATED, expected - used


def test_a_run_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    rows = tuple(row for row in ROWS if row.layer in ("nn.ReLU", "position encodings"))
    whole = autokernel.measure(rows, SMALL, 0).to_dict()
    samples = autokernel.samples
    drawn = []

    def counted(row, width, networks, first_seed):
        if networks > 1 and len(drawn) == 4:
            raise KeyboardInterrupt
        drawn.append((row.layer, networks))
        return samples(row, width, networks, first_seed)

    monkeypatch.setattr(autokernel, "samples", counted)
    with pytest.raises(KeyboardInterrupt):
        autokernel.measure(rows, SMALL, 0, keep=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(autokernel, "samples", samples)
    assert autokernel.measure(rows, SMALL, 0, keep=tmp_path).to_dict() == whole
    monkeypatch.setattr(autokernel, "samples", lambda row, width, n, seed: samples(row, width, min(n, 1), seed))
    assert autokernel.measure(rows, SMALL, 0, keep=tmp_path).to_dict() == whole


def test_networks_of_another_law_are_drawn_anew(tmp_path, monkeypatch):
    rows = tuple(row for row in ROWS if row.layer == "nn.ReLU")
    first = autokernel.measure(rows, SMALL, 0, keep=tmp_path)
    monkeypatch.setattr(autokernel, "LAW", {"weight_variance": 1.0, "bias_variance": 0.1})
    fresh, kept = (autokernel.measure(rows, SMALL, 0, keep=folder) for folder in (None, tmp_path))
    assert fresh.to_dict() == kept.to_dict() != first.to_dict()
    assert len(list(tmp_path.iterdir())) == 1


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
