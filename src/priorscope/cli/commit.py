"""The commit that runs, for records of results."""

import subprocess
from pathlib import Path

from ..version import __version__


def commit() -> str:
    """The short hash of the repository that the package lies in, `+` where files differ from it; else the version."""
    folder = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "--", str(folder)) else "")
    except (OSError, subprocess.CalledProcessError):
        return f"of version {__version__}"
