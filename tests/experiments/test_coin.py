"""coin: its cases are the committed ones, its world obeys both rules, and it says what it measured."""

import json
from pathlib import Path

import pytest
import torch

from priorscope.experiments import Config, choice, coin
from priorscope.experiments.grid import CORNER, SIDE, coordinates, pictures, states, world

ROOT = Path(__file__).parents[2]
TINY = {
    "worlds": [0],
    "widths": {"fully connected": 16, "convolutional": 8},
    "networks": {"fully connected": 6, "convolutional": 3},
}


def test_the_cases_are_those_that_were_fixed_before():
    assert json.loads((ROOT / "cases" / "coin.json").read_text()) == coin.cases()
    further = json.loads((ROOT / "cases" / "coin-architectures.json").read_text())
    assert further == coin.further_cases()


def test_every_cell_has_the_seeds_that_it_had():
    """The kept networks of full runs are named by them."""
    cells = coin.every_cell([0, 1], coin.COUNTS)
    places = {(cell.architecture, cell.world, cell.added): cell.place for cell in cells}
    assert places["coordinates, fully connected", 0, 0] == 1
    assert places["pictures, zero padding", 1, 40] == 16
    assert places["pictures, circular padding", 0, 12] == 19
    ranges = [{Config(seed=seed).first(choice.BETWEEN_CELLS * cell.place) for cell in cells} for seed in range(3)]
    assert ranges[0] == set(range(100_000, 2_400_001, 100_000))
    assert not ranges[0] & ranges[1] | ranges[1] & ranges[2]


def rule(agent, goal):
    """The longer way, by hand; 0 at a tie."""
    across, up = abs(goal[0] - agent[0]), abs(goal[1] - agent[1])
    return (across > up) - (across < up)


def every_state(of):
    return list(zip(of.agents.tolist(), of.coins.tolist(), of.coin.tolist(), of.corner.tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_labels_are_the_rules_own(seed):
    of = world(24, 40, 36, seed)
    for agent, c, by_coin, by_corner in every_state(of):
        assert by_coin == rule(agent, c) != 0
        assert by_corner == rule(agent, CORNER) != 0


def test_the_rules_agree_in_training_and_differ_everywhere_else():
    of = world(24, 40, 36, 0)
    found = every_state(of)
    assert all(found[i][1] == list(CORNER) and found[i][2] == found[i][3] for i in of.train)
    assert all(found[i][2] == -found[i][3] for i in [*of.added, *of.new])


def test_no_state_is_of_two_kinds():
    of = world(24, 40, 36, 0)
    seen = [(tuple(agent), tuple(c)) for agent, c, *_ in every_state(of)]
    assert len(set(seen)) == len(seen) == 100
    assert len({*of.train.tolist(), *of.added.tolist(), *of.new.tolist()}) == 100


def test_all_states_that_tell_the_rules_apart_can_be_drawn():
    agents, coins = (each.tolist() for each in states())
    pairs = list(zip(agents, coins, strict=True))
    telling = [(a, c) for a, c in pairs if rule(a, c) * rule(a, CORNER) == -1]
    of = world(56, 24, len(telling) - 24, 0)
    drawn = {(tuple(of.agents[i].tolist()), tuple(of.coins[i].tolist())) for i in [*of.added, *of.new]}
    assert drawn == {(tuple(a), tuple(c)) for a, c in telling}


def test_both_views_show_the_state():
    of = world(5, 3, 2, 0)
    seen = coordinates(of) * (SIDE - 1) / 2 + (SIDE - 1) / 2
    torch.testing.assert_close(seen, torch.cat([of.agents, of.coins], 1).double())
    for image, agent, c in zip(pictures(of), of.agents, of.coins, strict=True):
        assert image.square().mean() == 1
        assert image[0].nonzero().tolist() == [agent.tolist()]
        assert image[1].nonzero().tolist() == [c.tolist()]


@pytest.mark.slow
def test_it_is_measured_kept_and_drawn(tmp_path):
    outcome = coin.measure(TINY, (0, 12), Config(keep=tmp_path))
    assert len(outcome.numbers["cells"]) == len(list(tmp_path.iterdir())) == 6
    for cell in outcome.numbers["cells"]:
        assert sum(cell["predicted"]) == pytest.approx(1)
        assert sum(cell["measured"]) == pytest.approx(1)
    circular = [cell for cell in outcome.numbers["cells"] if "circular" in cell["architecture"]]
    assert [cell["dropped"] > 0 for cell in circular] == [True, True]
    assert [cell["contradicted"] > 0 for cell in circular] == [False, True]
    assert any("with the other label" in note for note in outcome.notes)
    names = [criterion.name for criterion in outcome.criteria]
    assert len(names) == 16
    for architecture in coin.INITS:
        assert sum(name.startswith(f"{architecture}: ") for name in names) == 4
        assert 0 <= outcome.numbers["architectures"][architecture]["trust"] <= 1
        assert any(note.startswith(f"{architecture}: gaps in") for note in outcome.notes)
    assert any("the posteriors do not exist" in note for note in outcome.notes)
    sizes = circular[0]["group_sizes"]
    assert len(sizes) == circular[0]["groups"]
    assert sum(sizes) + circular[0]["dropped"] == coin.NEW
    assert not outcome.passed(full=True)  # far fewer than 2,000 networks
    again = coin.measure(TINY, (0, 12), Config(keep=tmp_path))
    assert again.to_dict() == outcome.to_dict()
    assert len(coin.draw(outcome).axes) == 6


def test_a_circular_network_sees_the_way_modulo_the_grid():
    """Shifted states give the same output, with zero padding others."""
    of = world(24, 40, 36, 0)
    images = pictures(of)[:4]
    shifted = images.roll((3, 2), (2, 3))
    for name, same in (("pictures, circular padding", True), ("pictures, zero padding", False)):
        model = coin.network(name, 8, 0).double()
        assert torch.allclose(model(images), model(shifted), rtol=1e-10, atol=1e-12) == same
