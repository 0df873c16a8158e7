"""`priorscope audit`: which of your hypotheses networks of several architectures realise, as one table."""

import argparse
from typing import Any

from .. import plot
from ..errors import DataError
from ..generalization.audit import audit
from ..training.training import Training
from . import compare, training


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "audit",
        help="several architectures and your hypotheses, as one table",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", nargs="+", required=True, metavar="MODEL", help="as in compare; one or more architectures"
    )
    compare.add_arguments(parser, out="audit")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    repeated = {spec for spec in arguments.model if arguments.model.count(spec) > 1}
    if repeated:
        raise DataError(f"--model {repeated.pop()}", "is named twice", "Name every architecture once")
    asked, chosen = compare.read(arguments), training.stated(arguments) or Training()
    pairs = {spec: compare.limit_of(spec, asked, arguments) for spec in arguments.model}
    result = audit(
        pairs,
        asked.x,
        asked.y,
        asked.x_new,
        asked.candidates,
        chosen,
        duplicates=arguments.duplicates,
        samples=arguments.samples,
        seed=arguments.seed,
    )
    verdicts = result.verdicts.items()
    told = [f"{name}: {note}" for name, each in verdicts for note in (*each.notes, compare.trust_of(each))]
    rule = compare.rule_of(asked, next(iter(result.verdicts.values())))
    compare.show(result.rows(), (*asked.notes, rule, *told))
    compare.keep(arguments, result, plot.audit(result).figure, "audit")
    return 0
