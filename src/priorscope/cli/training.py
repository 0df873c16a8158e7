"""How networks are trained, as options: shared by the commands that predict or run a training."""

import argparse

from ..errors import DataError
from ..training.training import Training


def add_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """default: what is predicted where nothing is stated, in words."""
    training = parser.add_argument_group(f"training (default: {default})")
    training.add_argument("--optimizer", default="sgd", help="sgd, or any torch optimizer (outside the theory)")
    training.add_argument("--loss", choices=["half_sse", "mse", "cross_entropy"], default="half_sse", help="loss")
    training.add_argument("--learning-rate", type=float, help="of one step")
    training.add_argument("--steps", type=int, help="number of steps")
    training.add_argument("--momentum", type=float, default=0.0, help="heavy-ball momentum")
    training.add_argument("--nesterov", action="store_true", help="Nesterov's momentum")
    training.add_argument("--batch-size", type=int, help="mini-batches (predicted to first order)")
    training.add_argument("--weight-decay", type=float, default=0.0, help="towards the start")


def stated(arguments: argparse.Namespace) -> Training | None:
    """The training that was stated; None where none was."""
    plain = arguments.optimizer.lower() == "sgd" and arguments.loss == "half_sse" and arguments.batch_size is None
    if plain and arguments.learning_rate is None and arguments.steps is None:
        if arguments.momentum or arguments.weight_decay or arguments.nesterov:
            raise DataError(
                "--momentum, --nesterov and --weight-decay", "have no learning rate", "Give --learning-rate and --steps"
            )
        return None
    if arguments.learning_rate is None or arguments.steps is None:
        raise DataError("the training", "is not fully stated", "Give both --learning-rate and --steps")
    return Training(
        loss=arguments.loss,
        learning_rate=arguments.learning_rate,
        momentum=arguments.momentum,
        nesterov=arguments.nesterov,
        weight_decay=arguments.weight_decay,
        batch_size=arguments.batch_size,
        steps=arguments.steps,
        optimizer=arguments.optimizer,
    )
