"""One measurement in a process of its own: `python worker.py FOLDER TASK`, in the environment of one peer.

Reads FOLDER/TASK.json and its arrays, runs the method once to warm up and then `repeats` times, and writes
FOLDER/TASK.result.json (seconds, peak bytes above import, versions) and FOLDER/TASK.npy (the kernel, to be compared).
Only the standard library and numpy here: every peer's environment runs this file.
"""

import contextlib
import importlib
import importlib.metadata
import json
import os
import resource
import sys
import time
from pathlib import Path

import numpy as np

QUICK_SECONDS = 2.0
"""A method that is faster than this is timed three times as often; the clock is noisier there."""


def main(folder: Path, name: str) -> None:
    task = json.loads((folder / f"{name}.json").read_text())
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: task["threads"]])
    peer = importlib.import_module(f"peers.{task['peer']}")
    # What importing took for a moment is not the method's.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    with np.load(folder / task["arrays"]) as stored:
        arrays = dict(stored)
    compute = peer.method(task, arrays)
    first, kernel = timed(compute)
    repeats = task["repeats"] * (3 if first < QUICK_SECONDS else 1)
    seconds = []
    for _ in range(repeats):
        # One kernel at a time; what stacking it for the comparison takes comes after the peak is read.
        del kernel
        spent, kernel = timed(compute)
        seconds.append(spent)
    peak = resident("VmHWM") - before
    np.save(folder / f"{name}.npy", np.asarray(kernel))
    answer = {
        "seconds": seconds,
        "first_seconds": first,
        "peak_bytes": peak,
        "versions": {package: importlib.metadata.version(package) for package in peer.PACKAGES},
        "notes": peer.notes(task, arrays) if task["notes"] and hasattr(peer, "notes") else "",
    }
    (folder / f"{name}.result.json").write_text(json.dumps(answer))


def timed(compute):
    start = time.perf_counter()
    kernel = compute()
    return time.perf_counter() - start, kernel


def resident(field: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most. ru_maxrss would also count the process that started this one."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
