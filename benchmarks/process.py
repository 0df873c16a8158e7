"""Runs one measurement in a process of its own, within limits of time and memory."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parent
START_SECONDS = 60
"""What starting, importing and compiling may take beside the kernel itself."""


@dataclass(frozen=True)
class Limits:
    """seconds: of one kernel. bytes: of the whole process."""

    seconds: float
    bytes: int


@dataclass(frozen=True)
class Measured:
    """seconds: of each warm run. peak_bytes: above what importing took. notes: what the method says of itself."""

    seconds: list[float]
    first_seconds: float
    peak_bytes: int
    versions: dict[str, str]
    notes: str


class NotFinishedError(Exception):
    """A method that did not finish. of_size: fewer points may help it."""

    def __init__(self, reason: str, of_size: bool):
        super().__init__(reason)
        self.of_size = of_size


def run(
    python: Path,
    folder: Path,
    name: str,
    task: Mapping[str, Any],
    environment: Mapping[str, str],
    limits: Limits | None,
) -> Measured:
    """The measurement of one task.

    Raises:
        NotFinishedError: it took too long or too much memory, or raised; with its last line.
    """
    (folder / f"{name}.json").write_text(json.dumps(task))
    answer = folder / f"{name}.result.json"
    answer.unlink(missing_ok=True)
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [str(python), str(HERE / "worker.py"), str(folder), name],
            env=_environment(task, environment),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        reason = _watch(process, limits, runs=1 + int(task["repeats"]))
    if reason is not None:
        raise NotFinishedError(reason, of_size=True)
    if not answer.exists():
        last = _last_error((folder / f"{name}.log").read_text()) or f"stopped with status {process.returncode}"
        raise NotFinishedError(last[:200], of_size="memory" in last.lower() or process.returncode < 0)
    return Measured(**json.loads(answer.read_text()))


def _last_error(log: str) -> str:
    """The last line that names an exception; JAX writes more lines after it."""
    errors = [line for line in log.splitlines() if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
    return errors[-1] if errors else ""


def _watch(process: subprocess.Popen[bytes], limits: Limits | None, runs: int) -> str | None:
    """Waits for the process; ends it, and says why, where it goes beyond its limits."""
    if limits is None:
        process.wait()
        return None
    seen, end = psutil.Process(process.pid), time.monotonic() + START_SECONDS + runs * limits.seconds
    while process.poll() is None:
        try:
            held = seen.memory_info().rss
        except psutil.NoSuchProcess:
            continue
        beyond = "memory" if held > limits.bytes else "time" if time.monotonic() > end else None
        if beyond is not None:
            process.kill()
            process.wait()
            allowed = f"{limits.bytes / 1e9:g} GB" if beyond == "memory" else f"{limits.seconds:g} s"
            return f"needs more than {allowed}"
        time.sleep(0.02)
    return None


def _environment(task: Mapping[str, Any], more: Mapping[str, str]) -> dict[str, str]:
    threads = str(task["threads"])
    given = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), threads)
    ours = {"PYTHONPATH": str(HERE.parent / "src"), "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return {**os.environ, **given, **ours, **more}
