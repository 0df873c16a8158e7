"""`priorscope`: one subcommand a file. Exit status: 0 done, 1 a criterion failed, 2 bad input, 130 interrupted."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from ..errors import PriorscopeError, PriorscopeWarning
from ..version import __version__
from . import audit, compare, demo, experiment, learnability, report, similar


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; what is wrong is one line on standard error."""
    parser = argparse.ArgumentParser(
        prog="priorscope", description="What a neural network wants to learn, seen before it is trained."
    )
    parser.add_argument("--version", action="version", version=f"priorscope {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (report, learnability, compare, audit, similar, experiment, demo):
        command.add(commands)
    chosen = parser.parse_args(arguments)
    warnings.filterwarnings("always", category=PriorscopeWarning)
    warnings.showwarning = _show_warning
    try:
        return chosen.run(chosen)
    except PriorscopeError as error:
        print(f"priorscope: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("priorscope: interrupted; every file that was written is whole", file=sys.stderr)
        return 130


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:  # type: ignore[no-untyped-def]
    if issubclass(category, PriorscopeWarning):
        print(f"priorscope: warning: {message}", file=sys.stderr)
