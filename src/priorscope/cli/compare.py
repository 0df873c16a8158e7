"""`priorscope compare`: which of your hypotheses about test rows a trained network realises, and with what probability.

Two tables of your own: one to train on, and rows to ask about, with a column of labels for each hypothesis.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import plot
from ..data.contested import Contested, contested
from ..errors import DataError
from ..generalization.candidates import RULES
from ..generalization.compare import compare
from ..generalization.verdict import Verdict
from ..kernels.infinite import infinite_width
from ..kernels.pair import KernelPair
from ..network.specs import model_maker
from ..report.page import save_figure, write
from ..results import Result
from ..training.training import Training
from . import law, training

FLOW = "gradient flow to the end"


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="which of your hypotheses a trained network realises, on your own tables",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model",
        default="mlp:2x512:relu",
        help="mlp:DEPTHxWIDTH:ACTIVATION, file.py:function or package.module:function",
    )
    add_arguments(parser, out="compare")
    parser.set_defaults(run=run)


def add_arguments(parser: argparse.ArgumentParser, out: str) -> None:
    """What compare and audit share."""
    add = parser.add_argument
    add("--train", required=True, metavar="CSV", help="rows to train on: the target and input columns")
    add("--target", required=True, help="the column to predict")
    add("--test", required=True, metavar="CSV", help="rows to ask about: the same input columns, and the hypotheses'")
    add(
        "--hypotheses",
        required=True,
        nargs="+",
        metavar="NAME=COLUMN",
        help="columns of the test table with labels, in the target's units or classes",
    )
    add("--task", choices=["regression", "classification"], help="what the target is, where its type does not say")
    add("--duplicates", choices=["raise", "drop"], default="raise", help="test rows that are training rows")
    law.add_arguments(parser)
    training.add_arguments(parser, FLOW)
    add("--samples", type=int, default=100_000, help="networks sampled from the predicted law")
    add("--seed", type=int, default=0, help="of the samples")
    add("--out", default=out, help="the folder to write")


def run(arguments: argparse.Namespace) -> int:
    asked, chosen = read(arguments), training.stated(arguments) or Training()
    pair = limit_of(arguments.model, asked, arguments)
    verdict = compare(
        pair,
        asked.x,
        asked.y,
        asked.x_new,
        asked.candidates,
        chosen,
        duplicates=arguments.duplicates,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    show(verdict.rows(), (*asked.notes, rule_of(asked, verdict), *verdict.notes, trust_of(verdict)))
    keep(arguments, verdict, plot.verdict(verdict).figure, "compare")
    return 0


def read(arguments: argparse.Namespace) -> Contested:
    """Both tables, with the hypotheses that were named."""
    hypotheses: dict[str, str] = {}
    for each in arguments.hypotheses:
        name, equals, column = each.partition("=")
        if not (name and equals and column):
            raise DataError(f"--hypotheses {each}", "is not of the form NAME=COLUMN", "Give A=a_column B=b_column")
        if name in hypotheses:
            raise DataError(f"--hypotheses {each}", f"names {name!r} twice", "Give every hypothesis its own name")
        hypotheses[name] = column
    return contested(arguments.train, arguments.target, arguments.test, hypotheses, arguments.task)


def rule_of(asked: Contested, verdict: Verdict) -> str:
    """What the target was taken for, and what realises a hypothesis, in words."""
    told = RULES[verdict.rule]  # type: ignore[index]
    return f"task: {asked.dataset.task}; rule: {verdict.rule}, a hypothesis is realised by {told} at every test row"


def trust_of(verdict: Verdict) -> str:
    """How far the verdict deserves belief, in words."""
    score = "" if verdict.trust is None else f"{verdict.trust:.2f}, "
    return f"trust: {score}{verdict.trust_reason}"


def limit_of(spec: str, asked: Contested, arguments: argparse.Namespace) -> KernelPair:
    """Both kernels of the infinitely wide network that a spec or the user's function makes."""
    maker = model_maker(spec)
    init = law.initialization(arguments, maker)
    outputs = asked.dataset.classes or 1
    model = law.draw(maker, init, tuple(asked.x.shape[1:]), outputs, arguments.seed)
    return infinite_width(model, init, example=asked.x[:1])


def show(rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
    """A table whose columns stand under each other, and notes."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print()
    for note in notes:
        print(f"note: {note}")


def keep(arguments: argparse.Namespace, result: Result, figure: Any, name: str) -> None:
    """The result as JSON and as a figure, in the folder that was asked for."""
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    save_figure(figure, folder / name)
    write(folder / f"{name}.json", json.dumps(result.to_dict(), indent=1))
    print(f"\n{folder / name}.svg, .png, .json")
