"""The law that a network's weights are drawn from, as options: shared by the commands that make networks."""

import argparse

from torch import nn

from ..network.initialization import Initialization
from ..network.specs import ModelMaker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    law = parser.add_argument_group("initialization")
    law.add_argument(
        "--init",
        choices=["he", "torch"],
        help="he: variances below; torch: PyTorch's own (default for your own models)",
    )
    law.add_argument("--weight-variance", type=float, default=2.0, help="σ_w²")
    law.add_argument("--bias-variance", type=float, default=0.01, help="σ_b²")
    law.add_argument("--parameterization", choices=["standard", "ntk"], default="standard", help="rates of learning")


def initialization(arguments: argparse.Namespace, maker: ModelMaker) -> Initialization:
    """The law that was asked for; by default He's for specs, PyTorch's own for the user's modules."""
    law = arguments.init or ("he" if _is_spec(maker) else "torch")
    if law == "torch":
        return Initialization.torch_default(arguments.parameterization)
    return Initialization(arguments.weight_variance, arguments.bias_variance, arguments.parameterization)


def draw(
    maker: ModelMaker,
    init: Initialization,
    shape: tuple[int, ...],
    outputs: int,
    seed: int,
    width: int | None = None,
) -> nn.Module:
    """A network, a spec's weights drawn from the law; the user's own modules keep the weights that they come with."""
    model = maker(shape, outputs, seed, width)
    return init.apply_(model, seed) if _is_spec(maker) else model


def _is_spec(maker: ModelMaker) -> bool:
    return maker.source.startswith("mlp:")
