"""What a matrix may take of the machine's memory: said before it is made."""

import sys

import psutil

from ..errors import MemoryBudgetError


def check_memory(needed: int, what: str, memory: int | None = None) -> None:
    """Raises MemoryBudgetError where `needed` bytes exceed the budget, or what the machine has free."""
    allowed = psutil.virtual_memory().available if memory is None else memory
    if needed > allowed:
        raise MemoryBudgetError(
            what,
            f"needs {needed / 1e9:.3g} GB, {allowed / 1e9:.3g} GB are allowed",
            "Use fewer points, float32, or a larger `memory`",
        )


def peak_memory() -> int:
    """The most memory that this process has held at once, in bytes."""
    windows = getattr(psutil.Process().memory_info(), "peak_wset", None)
    if windows is not None:
        return int(windows)
    import resource  # Windows has none

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)
