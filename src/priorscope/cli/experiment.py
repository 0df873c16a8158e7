"""`priorscope experiment list | run NAME | run all | gallery`: one claim each, its figure, its criteria, measured."""

import argparse
import time
from pathlib import Path
from typing import Any

from ..experiments import EXPERIMENTS, Config, Experiment, find
from ..report.gallery import Record, write_gallery
from ..report.page import save_figure
from ..results import plain
from .commit import commit

ALL = "all"
FULL = "all networks; statistical criteria count too; started again, it goes on from what it kept in OUT/NAME-kept"


def add(commands: Any) -> None:
    parser = commands.add_parser("experiment", help="the claims of the field, each one command", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="all experiments, a line each")
    listing.set_defaults(run=show)
    running = actions.add_parser("run", help="runs one, or all; the exit status says whether the criteria hold")
    running.add_argument("name", help="an experiment, or all: then OUT/index.html shows them on one page")
    running.add_argument("--full", action="store_true", help=FULL)
    running.add_argument("--out", default="results", help="the folder for figures, JSON and the page")
    running.add_argument("--seed", type=int, default=0, help="another one: other networks, other draws")
    running.add_argument("--quiet", action="store_true", help="no progress bars")
    running.set_defaults(run=run)
    page = actions.add_parser("gallery", help="makes the page again from what lies in OUT, and runs nothing")
    page.add_argument("--out", default="results", help="the folder with the results")
    page.set_defaults(run=gallery)


def show(arguments: argparse.Namespace) -> int:
    for experiment in EXPERIMENTS.values():
        print(f"{experiment.name:14s} {experiment.claim}")
    return 0


def gallery(arguments: argparse.Namespace) -> int:
    print(f"The page: {write_gallery(Path(arguments.out), list(EXPERIMENTS))}")
    return 0


def run(arguments: argparse.Namespace) -> int:
    folder = Path(arguments.out)
    if arguments.name == ALL:
        return _run_all(folder, arguments)
    experiment = find(arguments.name)
    folder.mkdir(parents=True, exist_ok=True)
    record = _run(experiment, folder, arguments)
    print(f"\n{folder / experiment.name}.svg, .png, .json")
    return 1 if record.state == "failed" else 0


def _run_all(folder: Path, arguments: argparse.Namespace) -> int:
    """All of them; one that ends in an error is recorded as failed, and the others go on. In full, what an earlier
    start of the same commit and command has finished is not run again."""
    folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for experiment in EXPERIMENTS.values():
        path = folder / f"{experiment.name}.json"
        done = Record.read(path) if arguments.full and path.exists() else None
        if done is not None and _is_of(done, commit(), _command(experiment, arguments)):
            record = done
            print(f"{experiment.name}: {record.state}, kept from an earlier start")
        else:
            record = _run(experiment, folder, arguments, goes_on=True)
        write_gallery(folder, list(EXPERIMENTS))
        if record.state == "failed":
            failed.append(experiment.name)
    print(f"\nThe page: {folder / 'index.html'}" + (f"\nFAILED: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def _is_of(done: Record, commit: str, command: str) -> bool:
    """Whether a record is this command's of this commit; `+`: files differ from the commit, which may be others now."""
    return (done.commit, done.command, done.error) == (commit, command, "") and not commit.endswith("+")


def _command(experiment: Experiment, arguments: argparse.Namespace) -> str:
    seed = f" --seed {arguments.seed}" if arguments.seed else ""
    return f"priorscope experiment run {experiment.name}" + (" --full" if arguments.full else "") + seed


def _run(experiment: Experiment, folder: Path, arguments: argparse.Namespace, goes_on: bool = False) -> Record:
    print(f"{experiment.name}: {experiment.claim}\n{experiment.source}\n")
    keep = folder / f"{experiment.name}-kept" if arguments.full else None
    began = time.monotonic()
    outcome, error, at = None, "", commit()
    try:
        outcome = experiment.run(Config(arguments.full, arguments.seed, progress=not arguments.quiet, keep=keep))
        save_figure(experiment.draw(outcome), folder / experiment.name)
    except Exception as problem:
        if not goes_on:
            raise
        outcome, error = None, f"{type(problem).__name__}: {problem}"
        print(f"FAIL  {error}")
    record = Record(
        experiment.name,
        experiment.claim,
        experiment.source,
        _command(experiment, arguments),
        at,
        arguments.full,
        time.monotonic() - began,
        None if outcome is None else {**outcome.to_dict(), "criteria": [_criterion(c) for c in outcome.criteria]},
        error,
    )
    record.write(folder)
    for each in () if outcome is None else (*outcome.criteria, *(f"note: {note}" for note in outcome.notes)):
        print(each)
    return record


def _criterion(criterion: Any) -> dict[str, Any]:
    """A criterion as plain data, with what a page shows of it."""
    written = {"written": f"{criterion.value:.4g}", "limit": f"{criterion.threshold:.4g}"}
    return {**plain(criterion), "holds": criterion.holds, **written}
