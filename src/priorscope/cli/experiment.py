"""`priorscope experiment list | run NAME`: one claim each, its figure, its criteria with the measured values."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..experiments import EXPERIMENTS, Config, find
from ..report.page import save_figure, write

FULL = "all networks; statistical criteria count too; started again, it goes on from what it kept in OUT/NAME-kept"


def add(commands: Any) -> None:
    parser = commands.add_parser("experiment", help="the claims of the field, each one command", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all experiments, a line each")
    listing.set_defaults(run=show)
    running = actions.add_parser("run", help="runs one; the exit status says whether its criteria hold")
    running.add_argument("name")
    running.add_argument("--full", action="store_true", help=FULL)
    running.add_argument("--out", default="results", help="the folder for figures and JSON")
    running.add_argument("--seed", type=int, default=0)
    running.add_argument("--quiet", action="store_true", help="no progress bars")
    running.set_defaults(run=run)


def show(arguments: argparse.Namespace) -> int:
    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name:14s} {experiment.claim}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    experiment = find(arguments.name)
    print(f"{experiment.name}: {experiment.claim}\n{experiment.source}\n")
    folder = Path(arguments.out)
    folder.mkdir(parents=True, exist_ok=True)
    keep = folder / f"{experiment.name}-kept" if arguments.full else None
    outcome = experiment.run(Config(arguments.full, arguments.seed, progress=not arguments.quiet, keep=keep))
    save_figure(experiment.draw(outcome), folder / experiment.name)
    write(folder / f"{experiment.name}.json", json.dumps({"claim": experiment.claim, **outcome.to_dict()}, indent=1))
    for criterion in outcome.criteria:
        print(criterion)
    for note in outcome.notes:
        print(f"note: {note}")
    print(f"\n{folder / experiment.name}.svg, .png, .json")
    return 0 if outcome.passed(arguments.full) else 1
