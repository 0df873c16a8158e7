"""The coin's world: an agent and a coin on an 8×8 grid, and two rules that agree while the coin lies in the corner.

The label of a state is +1 if the way to the goal is longer across than up, |dx| > |dy|, and −1 if it is shorter; ties
are dropped. "coin": the goal is the coin. "corner": the goal is the far corner, where the coin always lies in training.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

SIDE = 8
CORNER = (SIDE - 1, SIDE - 1)


@dataclass(frozen=True, eq=False)
class World:
    """States of the grid, and which of them are for what.

    agents, coins: (n, 2), places. coin, corner: (n,), ±1, what each rule says.
    train: rows whose coin lies in the corner. added: rows that tell the rules apart, to be added to training, in their
    order. new: rows that tell them apart, to be asked.
    """

    agents: Int[Tensor, "n 2"]
    coins: Int[Tensor, "n 2"]
    coin: Float[Tensor, " n"]
    corner: Float[Tensor, " n"]
    train: Int[Tensor, " t"]
    added: Int[Tensor, " a"]
    new: Int[Tensor, " m"]


def longer(way: Int[Tensor, "n 2"]) -> Float[Tensor, " n"]:
    """+1 where |dx| > |dy|, −1 where |dx| < |dy|, 0 at ties."""
    return (way[:, 0].abs() - way[:, 1].abs()).sign().to(torch.float64)


def states() -> tuple[Int[Tensor, "n 2"], Int[Tensor, "n 2"]]:
    """All places of the agent and the coin, (4096, 2) each."""
    places = torch.cartesian_prod(torch.arange(SIDE), torch.arange(SIDE))
    pairs = torch.cartesian_prod(torch.arange(len(places)), torch.arange(len(places)))
    return places[pairs[:, 0]], places[pairs[:, 1]]


def world(train: int, added: int, new: int, seed: int) -> World:
    """So many states of each kind, drawn without replacement: no state is of two kinds."""
    agents, coins = states()
    corner = torch.tensor(CORNER)
    by_coin, by_corner = longer(coins - agents), longer(corner - agents)
    in_corner = (coins == corner).all(1)
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: Tensor, number: int) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)[:number]]

    usual = drawn((in_corner & (by_coin != 0)).nonzero()[:, 0], train)
    telling = drawn((by_coin * by_corner == -1).nonzero()[:, 0], added + new)
    rows = torch.cat([usual, telling])
    kinds = torch.arange(len(rows)).split([train, added, new])
    return World(agents[rows], coins[rows], by_coin[rows], by_corner[rows], *kinds)


def coordinates(world: World) -> Float[Tensor, "n 4"]:
    """The four coordinates, within [−1, 1]."""
    middle = (SIDE - 1) / 2
    return (torch.cat([world.agents, world.coins], 1).to(torch.float64) - middle) / middle


def pictures(world: World) -> Float[Tensor, "n 2 8 8"]:
    """A channel for the agent and one for the coin, of mean square 1: 8 at its place, 0 elsewhere."""
    rows = torch.arange(len(world.agents))
    images = torch.zeros(len(rows), 2, SIDE, SIDE, dtype=torch.float64)
    for channel, places in enumerate((world.agents, world.coins)):
        images[rows, channel, places[:, 0], places[:, 1]] = float(SIDE)
    return images
