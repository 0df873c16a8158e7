"""Python as users have it, without the checker of types that the tests install: our own errors must come first."""

import subprocess
import sys
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "src"


def messages(code: str) -> list[str]:
    """What code prints, a line each, in an interpreter of its own."""
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SOURCES)!r})\n{code}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
