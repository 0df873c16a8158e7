"""`priorscope report`: what your network will learn from your data, on one page."""

import argparse
from typing import Any

from torch import nn

from .. import data
from ..errors import DataError
from ..network.specs import model_maker
from ..report import report
from ..training.training import Training
from . import law

MOST = 1000
"""Training points taken from larger data sets, unless --train says more."""
WIDTHS = (32, 128)


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "report",
        help="what your network will learn from your data, on one page",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_arguments(parser)
    parser.add_argument("--out", default="report", help="the folder to write")
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--model",
        default="mlp:2x512:relu",
        help="mlp:DEPTHxWIDTH:ACTIVATION, file.py:function or package.module:function",
    )
    add("--data", default="digits", help=f"{', '.join(sorted(data.NAMES))}; or a .csv or .npz file")
    add("--target", help="the CSV's column to predict")
    add("--task", choices=["regression", "classification"], help="what the target is, where its type does not say")
    add("--train", type=int, help=f"number of training points (4/5 of the data, at most {MOST})")
    add("--test", type=int, help="number of test points (a quarter of the training points)")
    law.add_arguments(parser)
    training = parser.add_argument_group("training (default: plain descent at half the step limit)")
    training.add_argument("--optimizer", default="sgd", help="sgd, or any torch optimizer (outside the theory)")
    training.add_argument("--loss", choices=["half_sse", "mse", "cross_entropy"], default="half_sse", help="loss")
    training.add_argument("--learning-rate", type=float, help="of one step")
    training.add_argument("--steps", type=int, help="number of steps")
    training.add_argument("--momentum", type=float, default=0.0, help="heavy-ball momentum")
    training.add_argument("--nesterov", action="store_true", help="Nesterov's momentum")
    training.add_argument("--batch-size", type=int, help="mini-batches (predicted to first order)")
    training.add_argument("--weight-decay", type=float, default=0.0, help="towards the start")
    add("--widths", type=_widths, default=WIDTHS, help="widths to measure the distance from the prediction at")
    add("--seed", type=int, default=0, help="of the split, the weights and the batches")
    add("--quiet", action="store_true", help="no progress bars")


def _widths(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} are no widths. Give whole numbers of at least 1, like 32,128")
    return tuple(map(int, parts))


def run(arguments: argparse.Namespace) -> int:
    result = make_report(arguments, arguments.out)
    for question, sentences in result.answers.items():
        print(f"\n{question}\n  " + "\n  ".join(sentences))
    print(f"\nThe page: {result.page}")
    return 0


def make_report(arguments: argparse.Namespace, out: str) -> Any:
    maker = model_maker(arguments.model)
    dataset = data.load(arguments.data, arguments.target, arguments.task)
    train = arguments.train
    if train is None and len(dataset.x) > MOST * 5 // 4:
        train = MOST
    split = data.split(dataset, train, arguments.test, arguments.seed)
    shape, outputs = tuple(split.x.shape[1:]), dataset.classes or 1
    init = law.initialization(arguments, maker)

    def make(width: int | None = None) -> nn.Module:
        return law.draw(maker, init, shape, outputs, arguments.seed, width)

    widths = tuple(w for w in arguments.widths if w != maker.width) if maker.takes_width else ()
    return report(
        make(),
        split,
        training=_training(arguments),
        init=init,
        out=out,
        make=make if maker.takes_width else None,
        widths=widths,
        width=maker.width,
        title=f"What {maker.source} will learn from {dataset.name}",
        description=maker.source,
        seed=arguments.seed,
        progress=not arguments.quiet,
    )


def _training(arguments: argparse.Namespace) -> Training | None:
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
