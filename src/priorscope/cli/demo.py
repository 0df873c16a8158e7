"""`priorscope demo`: the essay's figures and a report on digits, linked from one page."""

import argparse
from pathlib import Path
from typing import Any

from ..report import essay
from . import report


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "demo", help="the essay's figures and a report on digits, on one page", description=__doc__
    )
    report.add_arguments(parser)
    parser.add_argument("--essay", default="notebooks/essay.ipynb", help="the essay's notebook")
    parser.add_argument("--out", default="demo", help="the folder to write")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    out, notebook = Path(arguments.out), Path(arguments.essay)
    essay.check(notebook)
    out.mkdir(parents=True, exist_ok=True)
    result = report.make_report(arguments, str(out / "report"))
    executed = essay.execute(notebook, progress=not arguments.quiet)
    page = essay.write_essay(executed, out / "essay")
    shown = list(essay.figures(executed))
    cards = [shown[-1], *shown[len(shown) // 4 :: len(shown) // 4][:3]]  # README's picture, and three on the way to it
    cover = essay.write_cover(out, page, Path(result.page), cards)
    print(f"\nThe page: {cover.resolve()}")
    return 0
