"""`priorscope report`: what your network will learn from your data, on one page."""

import argparse
from typing import Any

from torch import nn

from .. import data
from ..network.specs import model_maker
from ..report import report
from . import law, training

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
    training.add_arguments(parser, "plain descent at half the step limit")
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
        training=training.stated(arguments),
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
