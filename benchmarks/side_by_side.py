"""Runs ours and the peers side by side: each measurement in its own process, in turn, so that drift hits all alike.

A row's script says what is compared (`Row`) and calls `main`. First each peer's ways are tried on a fraction of the
points, and the fastest goes on to the largest power-of-two fraction that stays within the time and the memory allowed.
Then ours and each peer's chosen way run in turn, `rounds` times. Every kernel is compared with ours, entry by entry.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
from contenders import OURS, OURS_LIMITS, PEERS, Peer, Way
from environments import python_of
from process import Limits, Measured, NotFinishedError, run

TOLERANCE = 1e-4
"""The largest difference from our kernel, relative to its largest entry, in float32."""

TOLERANCE_OF_LIMITS = 2e-3
"""As TOLERANCE, for infinite networks: in float32 neural-tangents takes arccos of rounded cosines at equal points."""

PLAN_LINES = 24
"""How much of our plan is printed; the file has all of it."""


@dataclass(frozen=True)
class Case:
    """One network on one set of inputs.

    arrays: called with the number of points, gives {name: array}: `x1/`, `x2/` and `weights/NAME`. memory: bytes that
    ours may take. cross: always other points on the second side.
    """

    name: str
    network: str
    points: int
    forms: tuple[str, ...]
    arrays: Callable[[int], dict[str, np.ndarray]]
    memory: int
    sizes: Mapping[str, Any] = field(default_factory=dict)
    home: str | None = None
    cross: bool = False


@dataclass(frozen=True)
class Target:
    """ratio: seconds of the peer (None: of the fastest) over ours, at least. gigabytes: our peak, at most."""

    ratio: float | None = None
    peer: str | None = None
    gigabytes: float | None = None


@dataclass(frozen=True)
class Row:
    """One row of the targets: cases, small cases for a smoke run, peers, targets, and figures that others published."""

    name: str
    title: str
    cases: tuple[Case, ...]
    quick: tuple[Case, ...]
    peers: tuple[str, ...]
    targets: tuple[Target, ...]
    quoted: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Entrant:
    """A peer's way at the size that it can do."""

    peer: Peer
    way: Way
    points: int


def main(row: Row, arguments: Sequence[str] | None = None) -> int:
    options = parse(row, arguments)
    cases = row.quick if options.quick else row.cases
    report: dict[str, Any] = {
        "row": row.name,
        "title": row.title,
        "machine": machine.describe(options.threads),
        "command": machine.command(arguments),
        "commit": machine.commit(),
        "quoted": list(row.quoted),
        "comparisons": [],
    }
    print(f"{row.title}\n{report['machine']['cpu']}, {options.threads} threads, commit {report['commit']}", flush=True)
    for case in cases:
        points = options.points or case.points
        with tempfile.TemporaryDirectory() as folder:
            for form in options.forms or case.forms:
                comparison = Comparison(case, form, points, options, Path(folder))
                result = comparison.result([PEERS[name] for name in options.peers])
                print(table(result, row.targets if points == case.points and not options.quick else ()), flush=True)
                report["comparisons"].append(result)
    for line in row.quoted:
        print(f"quoted: {line}")
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return int(any(entry["disagrees"] for result in report["comparisons"] for entry in result["entries"]))


def parse(row: Row, arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=row.title)
    parser.add_argument("--points", type=int, help="how many points, a power of two; the row's own number by default")
    parser.add_argument("--threads", type=int, default=2, help="cores that each process may use")
    parser.add_argument(
        "--peers", nargs="*", default=list(row.peers), choices=PEERS, metavar="PEER", help=", ".join(PEERS)
    )
    forms = sorted({form for case in row.cases for form in case.forms})
    parser.add_argument("--forms", nargs="*", choices=forms, help="all of the row by default")
    parser.add_argument("--cross", action="store_true", help="as many other points on the second side, no Gram matrix")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each method")
    parser.add_argument("--limit", type=float, default=600, help="seconds that a peer's kernel may take")
    parser.add_argument("--gigabytes", type=float, default=10, help="what a peer's process may take")
    parser.add_argument("--quick", action="store_true", help="a small case, in seconds; writes no file without --out")
    parser.add_argument("--out", type=Path, help="the file to write; benchmarks/results/ROW.json by default")
    options = parser.parse_args(arguments)
    if options.points is not None and (options.points < 2 or options.points & (options.points - 1)):
        parser.error(f"--points: is {options.points}. Give a power of two, 2 or more: peers may need a fraction.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not 1 <= options.threads <= cores:
        parser.error(f"--threads: is {options.threads}. Give 1 to {cores}, the cores of this machine.")
    if options.rounds < 1 or options.limit <= 0 or options.gigabytes <= 0:
        parser.error("--rounds, --limit, --gigabytes: one of them is not positive. Give positive numbers.")
    if options.out is None and not options.quick:
        options.out = Path(__file__).parent / "results" / f"{row.name}.json"
    return options


class Comparison:
    """One form of one case: finds what each peer can do, runs all in turn, and compares their kernels with ours."""

    def __init__(self, case: Case, form: str, points: int, options: argparse.Namespace, folder: Path):
        self.case, self.form, self.points, self.options, self.folder = case, form, points, options, folder
        self.ours = OURS_LIMITS if form == "limits" else OURS
        self.cross = options.cross or case.cross
        self.limits = Limits(options.limit, int(options.gigabytes * 1e9))
        self.failures: list[str] = []
        if not (folder / "arrays.npz").exists():
            np.savez(folder / "arrays.npz", **case.arrays(points))

    def result(self, peers: Sequence[Peer]) -> dict[str, Any]:
        ours = Entrant(self.ours, self.ours.ways[0], self.points)
        entrants = [ours]
        for peer in peers:
            if self.cross and not peer.cross:
                self.failures.append(f"{peer.name}: knows Gram matrices only")
            elif (found := self.largest(peer)) is not None:
                entrants.append(found)
        runs: dict[Entrant, list[Measured]] = {entrant: [] for entrant in entrants}
        for number in range(self.options.rounds):
            for entrant in entrants:
                runs[entrant].append(self.measure(entrant, notes=entrant is ours and number == 0))
        entries = [self.entry(entrant, runs[entrant], runs[ours]) for entrant in entrants]
        return {
            "case": self.case.name,
            "form": self.form,
            "points": self.points,
            "cross": self.cross,
            "memory_bytes_given": self.case.memory,
            "plan": runs[ours][0].notes,
            "entries": entries,
            "failures": self.failures,
        }

    def largest(self, peer: Peer) -> Entrant | None:
        """The fastest way at the largest size that works; None, and the reasons in `failures`, if none does."""
        points, ways = self.points if self.options.quick else max(2, self.points // 8), list(peer.ways)
        seconds: dict[Way, float] = {}
        while points >= 1 and ways:
            seconds, ways = self.trial(peer, ways, points)
            if seconds:
                break
            points //= 2
        if not seconds:
            return None
        while points < self.points:
            fastest = min(seconds.values())
            # Doubled points are about four times the work; ways far behind will not catch up.
            going = [way for way, spent in seconds.items() if spent < 1.5 * fastest and 4 * spent < self.limits.seconds]
            more, _ = self.trial(peer, going, 2 * points)
            if not more:
                break
            seconds, points = more, 2 * points
        return Entrant(peer, min(seconds, key=lambda way: seconds[way]), points)

    def trial(self, peer: Peer, ways: Sequence[Way], points: int) -> tuple[dict[Way, float], list[Way]]:
        """Seconds of the ways that work at this size, and the ways that a smaller size may help."""
        seconds: dict[Way, float] = {}
        smaller = []
        for way in ways:
            try:
                seconds[way] = median(self.measure(Entrant(peer, way, points)).seconds)
                print(f"  tried {peer.name} ({way.name}), {points} points: {seconds[way]:.3g} s", flush=True)
            except NotFinishedError as failure:
                self.failures.append(f"{peer.name} ({way.name}), {points} points: {failure}")
                print(f"  {self.failures[-1]}", flush=True)
                smaller += [way] if failure.of_size else []
        return seconds, smaller

    def measure(self, entrant: Entrant, notes: bool = False) -> Measured:
        peer, way = entrant.peer, entrant.way
        task = {
            "peer": peer.module,
            "options": dict(way.options),
            "network": self.case.network,
            "sizes": dict(self.case.sizes),
            "form": self.form,
            "cross": self.cross,
            "points": entrant.points,
            "arrays": "arrays.npz",
            "threads": self.options.threads,
            "repeats": 1,
            "memory": self.case.memory,
            "notes": notes,
        }
        home = peer.home or self.case.home
        limits = None if peer is self.ours else self.limits
        return run(python_of(home), self.folder, f"{peer.module}-{self.form}", task, way.environment, limits)

    def entry(self, entrant: Entrant, runs: Sequence[Measured], ours: Sequence[Measured]) -> dict[str, Any]:
        seconds = [second for one in runs for second in one.seconds]
        scale = (self.points / entrant.points) ** 2
        difference = self.difference(entrant)
        spent, own = median(seconds), median(second for one in ours for second in one.seconds)
        return {
            "method": entrant.peer.name,
            "way": entrant.way.name,
            "points": entrant.points,
            "extrapolated": entrant.points != self.points,
            "seconds": spent,
            "seconds_at_full_size": spent * scale,
            "ratio_to_ours": spent * scale / own,
            "peak_bytes": max(one.peak_bytes for one in runs),
            "all_seconds": seconds,
            "versions": runs[0].versions,
            "difference": difference,
            "disagrees": not difference <= (TOLERANCE_OF_LIMITS if self.form == "limits" else TOLERANCE),
        }

    def difference(self, entrant: Entrant) -> float:
        """The largest difference of the last kernel from ours, relative to the largest entry of ours."""
        ours = np.load(self.folder / f"{self.ours.module}-{self.form}.npy", mmap_mode="r")
        theirs = np.load(self.folder / f"{entrant.peer.module}-{self.form}.npy", mmap_mode="r")
        n = entrant.points
        ours = ours[:n, :, :n] if self.form == "blocks" else ours[:n, :n]
        if ours.shape != theirs.shape:
            return float("inf")
        return float(abs(ours - theirs).max() / abs(ours).max())


def table(result: Mapping[str, Any], targets: Sequence[Target]) -> str:
    n = result["points"]
    lines = [f"\n{result['case']}, {result['form']}, {n} x {n} points{' (cross)' if result['cross'] else ''}"]
    lines.append(f"{'method':<50}{'points':>7}{'seconds':>10}{'/ ours':>9}{'peak GB':>9}{'difference':>12}")
    for e in result["entries"]:
        star = "*" if e["extrapolated"] else ""
        lines.append(
            f"{e['method'] + ' (' + e['way'] + ')':<50}{e['points']:>7}{e['seconds_at_full_size']:>9.4g}{star:<1}"
            f"{e['ratio_to_ours']:>8.3g}{star:<1}{e['peak_bytes'] / 1e9:>9.3g}{e['difference']:>12.1e}"
            + (" DISAGREES" if e["disagrees"] else "")
        )
    if any(e["extrapolated"] for e in result["entries"]):
        lines.append("* measured on fewer points, and scaled by the number of entries")
    plan = result["plan"].splitlines()
    lines += [*(verdict(target, result["entries"]) for target in targets), *plan[:PLAN_LINES]]
    if len(plan) > PLAN_LINES:
        lines.append(f"... and {len(plan) - PLAN_LINES} more lines of the plan, in the file")
    return "\n".join(lines)


def verdict(target: Target, entries: Sequence[Mapping[str, Any]]) -> str:
    """One target as a line: what was asked, what was measured."""
    ours, *peers = entries
    if target.gigabytes is not None:
        peak = ours["peak_bytes"] / 1e9
        return (
            f"target: peak <= {target.gigabytes:g} GB: {peak:.3g} GB, {'met' if peak <= target.gigabytes else 'MISSED'}"
        )
    valid = [e for e in peers if not e["disagrees"] and target.peer in (None, e["method"])]
    asked = f"target: >= {target.ratio:g} x faster than {target.peer or 'the best peer'}"
    if not valid:
        return f"{asked}: not measured"
    ratio = min(e["ratio_to_ours"] for e in valid)
    return f"{asked}: {ratio:.3g} x, {'met' if ratio >= (target.ratio or 0) else 'MISSED'}"


def start(row: Row) -> None:
    """Runs a row as a command: status 1 where a peer's kernel differs from ours, or ours does not finish."""
    try:
        sys.exit(main(row))
    except NotFinishedError as failure:
        sys.exit(f"ours: did not finish: {failure}")
