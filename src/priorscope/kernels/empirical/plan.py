"""How an empirical kernel will be computed: tiles of Jacobian rows, groups of parameters, flops and bytes.

`make_plan` is a pure function of integers. A tile is (points × outputs) rows of the Jacobian, restricted to one group
of parameters; one tile stays while the others are streamed past it, so that fewer and larger tiles mean less work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from ...errors import MemoryBudgetError

Form = Literal["trace", "blocks", "diagonal", "features"]

SPARE = 8
"""One part in this many of the budget is left to the allocator and the libraries' scratch."""

FLOPS_PER_WRITE = 64
"""What making one entry of a row costs, memory traffic included, in flops of a matrix product. Measured on CPUs."""


@dataclass(frozen=True)
class Workload:
    """What is to be computed, in integers.

    n1, n2: points. same: a Gram matrix, whose symmetry is used. outputs: o. sizes: {parameter: its number of entries},
    of those that are differentiated. element: bytes of one number. activations: bytes that one point's forward pass
    keeps for the backward pass. forward_flops: of one point. held: bytes that are in use all the time.
    """

    form: Form
    n1: int
    n2: int
    same: bool
    outputs: int
    sizes: Mapping[str, int]
    element: int
    activations: int = 0
    forward_flops: int = 0
    held: int = 0
    vectorized: bool = True

    @property
    def one_sided(self) -> bool:
        return self.form in ("diagonal", "features")

    @property
    def result_bytes(self) -> int:
        entries = {
            "trace": self.n1 * self.n2,
            "blocks": self.n1 * self.n2 * self.outputs**2,
            "diagonal": self.n1,
            "features": self.n1 * self.outputs * sum(self.sizes.values()),
        }
        return entries[self.form] * self.element


@dataclass(frozen=True)
class Group:
    """Parameters whose rows are computed together: tiles of `samples` points stay, `streamed` are made at once."""

    names: tuple[str, ...]
    size: int
    largest: int
    samples: int = 0
    streamed: int = 0
    outputs: int = 0


@dataclass(frozen=True)
class Plan:
    """How a kernel will be computed; `print(plan)` shows it.

    method: the name of the method. reason: why this way of making rows. groups: of parameters, with their tiles.
    flops: floating-point operations, estimated from the forward pass of one point. bytes: the estimated peak.
    """

    method: str
    reason: str
    form: Form
    n1: int
    n2: int
    outputs: int
    groups: tuple[Group, ...]
    flops: int
    bytes: int
    memory: int

    def __str__(self) -> str:
        lines = [
            f"{self.form} of {self.n1} x {self.n2} points, {self.outputs} outputs",
            f"method   {self.method} ({self.reason})",
            f"flops    {self.flops:.3g}",
            f"memory   {self.bytes / 1e6:.4g} MB of {self.memory / 1e6:.4g} MB",
            f"{'parameters':<44}{'entries':>12}{'kept':>8}{'streamed':>10}{'outputs':>9}",
        ]
        for group in self.groups:
            more = f" and {len(group.names) - 1} more" if len(group.names) > 1 else ""
            lines.append(
                f"{group.names[0] + more:<44}{group.size:>12}{group.samples:>8}{group.streamed:>10}{group.outputs:>9}"
            )
        return "\n".join(lines)


def make_plan(work: Workload, memory: int, reason: str = "") -> Plan:
    """The cheapest plan that stays within `memory` bytes.

    Raises:
        MemoryBudgetError: not even one row of the largest parameter fits; it names the smallest budget that would do.
    """
    fixed = work.held + work.result_bytes
    usable = memory - memory // SPARE - fixed
    plans: list[tuple[int, int, tuple[Group, ...]]] = []
    for cap in _caps(work.sizes):
        groups = [_tiled(group, work, usable) for group in _packed(work.sizes, cap)]
        if all(group.samples for group in groups):
            plans.append((sum(_cost(group, work) for group in groups), len(plans), tuple(groups)))
    if not plans:
        finest = _packed(work.sizes, max(work.sizes.values()))
        least = fixed + max(_tile_bytes(replace(g, samples=1, streamed=1, outputs=1), work) for g in finest)
        least = -(-least * SPARE // (SPARE - 1)) + SPARE
        raise MemoryBudgetError(
            f"the empirical ntk ({work.form}, {work.n1} x {work.n2} points, {work.outputs} outputs)",
            f"does not fit into {memory} bytes: its result takes {work.result_bytes}, and rows of "
            f"`{max(work.sizes, key=lambda name: work.sizes[name])}` come on top",
            f"Give memory={least} or more, fewer points, or parameters= to leave some out",
        )
    _, _, best = min(plans)
    peak = fixed + max(_tile_bytes(group, work) for group in best)
    flops = sum(_flops(group, work) for group in best)
    method = "jacobian contraction, " + ("vectorized" if work.vectorized else "one point at a time")
    return Plan(method, reason, work.form, work.n1, work.n2, work.outputs, best, flops, peak, memory)


def _caps(sizes: Mapping[str, int]) -> list[int]:
    """Largest sizes of a group to try: all parameters in one, halves of that, down to the largest parameter."""
    total, largest = sum(sizes.values()), max(sizes.values())
    caps = [total]
    while caps[-1] // 2 > largest:
        caps.append(caps[-1] // 2)
    return caps if caps[-1] == largest else [*caps, largest]


def _packed(sizes: Mapping[str, int], cap: int) -> list[Group]:
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and sum(sizes[n] for n in groups[-1]) + size > cap:
            groups.append([])
        groups[-1].append(name)
    return [Group(tuple(g), sum(sizes[n] for n in g), max(sizes[n] for n in g)) for g in groups]


def _tile_bytes(group: Group, work: Workload) -> int:
    """The peak while one tile stays and another is made and contracted with it."""
    rows = group.streamed * group.outputs
    kept = group.samples * group.outputs * group.size * (not work.one_sided)
    block = 2 * group.samples * max(group.samples, group.streamed) * (not work.one_sided)
    if work.form == "blocks":
        block *= group.outputs**2
    made = rows * group.size * (2 if work.one_sided else 1)  # the reader of a tile holds it while the next is made
    if not work.vectorized:
        return (kept + made + block + group.size + group.largest) * work.element + 3 * work.activations
    # A gradient in the making: one copy for its layout, one where a parameter's uses are summed.
    making = 2 * rows * group.largest
    return (kept + made + making + block) * work.element + (2 * rows + group.streamed) * work.activations


def _tiled(group: Group, work: Workload, usable: int) -> Group:
    """The group with the cheapest tiles that fit: fewer outputs at once leave room for more points, and the reverse.

    It has 0 samples where not even one row fits.
    """
    choices, outputs = [group], work.outputs
    while outputs:
        choices.append(_with_outputs(group, work, usable, outputs))
        outputs //= 2
    fitting = [choice for choice in choices if choice.samples]
    return min(fitting, key=lambda choice: _cost(choice, work)) if fitting else group


def _with_outputs(group: Group, work: Workload, usable: int, outputs: int) -> Group:
    """Tiles of so many outputs: at most half of the memory for the streamed one, the rest for the kept one."""
    n = max(work.n1, work.n2)

    def fits(budget: int, samples: int, streamed: int) -> bool:
        return _tile_bytes(replace(group, samples=samples, streamed=streamed, outputs=outputs), work) <= budget

    if not fits(usable, 1, 1):
        return group
    streamed = max(1, _largest(n, lambda t: fits(usable // 2, 1, t)))
    samples = streamed if work.one_sided else _largest(n, lambda s: fits(usable, s, min(s, streamed)))
    samples = ceil(n / ceil(n / samples))  # tiles of equal size
    return replace(group, samples=samples, streamed=min(streamed, samples), outputs=outputs)


def _largest(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `limit` that fits, 0 if none does."""
    if fits(limit):
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _made(group: Group, work: Workload) -> int:
    """How many rows are made, the repeated ones included."""
    rows1, rows2 = work.n1 * work.outputs, work.n2 * work.outputs
    if work.one_sided:
        return rows1
    passes = ceil(work.n1 / group.samples)
    if work.form == "blocks":
        passes *= ceil(work.outputs / group.outputs)
    return rows1 + (rows2 * (passes - 1) // 2 if work.same else rows2 * passes)


def _flops(group: Group, work: Workload) -> int:
    row = work.forward_flops // group.outputs + 2 * work.forward_flops + 2 * group.size
    products = work.n1 * work.outputs * (1 if work.one_sided else work.n2)
    if work.form == "blocks":
        products *= work.outputs
    symmetric = work.same and not work.one_sided
    return _made(group, work) * row + 2 * group.size * (products // 2 if symmetric else products)


def _cost(group: Group, work: Workload) -> int:
    return _flops(group, work) + FLOPS_PER_WRITE * group.size * _made(group, work)
