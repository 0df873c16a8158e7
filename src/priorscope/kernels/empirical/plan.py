"""How an empirical kernel will be computed: a way for every parameter, tiles of points, flops and bytes.

`make_plan` is a pure function of integers. A tile is some points and some outputs, of a group of parameters; one tile
stays while the others are streamed past it, so that fewer and larger tiles mean less work. Every parameter goes the
cheaper way: by Grams of its activations and signals, 2 n² R² (p + o² q) flops, or by its own Jacobian,
2 n o R p q + 2 n² o² p q, for R positions, p inputs and q signals.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil

from ...errors import MemoryBudgetError
from .factors import SCRATCH, Form
from .tapping.passes import Backward
from .workload import Share, Way, Workload

PRODUCTS = "NTK-vector products"


SPARE = 4
"""One part in this many of the budget is left to the allocator and the libraries' scratch."""

FLOPS_PER_WRITE = 64
"""What making one entry of a Jacobian costs, memory traffic included, in flops of a matrix product; measured."""

FLOPS_PER_PRODUCT = 2 * 10**7
"""What one product with the Jacobian costs beside its own flops, in flops of a large matrix product; measured."""

FLOPS_PER_PASS = 10**8
"""What one pass through a module costs beside its own flops, in flops of a large matrix product; measured."""

FEW_ROWS = 4096
"""A backward pass with fewer rows than this in its matrix products is better shared by all outputs; measured."""


@dataclass(frozen=True)
class Group:
    """Parameters that are worked on together, each in its way: `samples` points stay, `streamed` are made at once."""

    shares: tuple[Share, ...]
    ways: tuple[Way, ...]
    samples: int = 0
    streamed: int = 0
    outputs: int = 0

    @property
    def way_of(self) -> dict[str, Way]:
        """{parameter whose part is made: its way}; a bias is in its weight's Gram where there is one."""
        return {
            name: way
            for share, way in zip(self.shares, self.ways, strict=True)
            for name in (share.names if way == "jacobian" else (share.name,))
        }

    @property
    def riders(self) -> dict[str, str]:
        """{weight: the bias that is in its Gram}."""
        pairs = zip(self.shares, self.ways, strict=True)
        return {share.name: share.bias for share, way in pairs if share.bias is not None and way == "grams"}

    def kept(self, outputs: int) -> int:
        return sum(share.kept(way, outputs) for share, way in zip(self.shares, self.ways, strict=True))


@dataclass(frozen=True)
class Plan:
    """How a kernel will be computed; `print(plan)` shows it.

    method: how activations and signals are made. reason: why so. backward: how the signals of several outputs are
    made. groups: of parameters, with their ways and tiles. rejected: {another method: why not}. flops:
    floating-point operations, the certificate's included. bytes: the estimated peak. certificate_flops: of the flops.
    made: points that pass through the module, the repeated ones included.
    """

    method: str
    reason: str
    form: Form
    n1: int
    n2: int
    outputs: int
    groups: tuple[Group, ...]
    backward: Backward
    flops: int
    bytes: int
    memory: int
    certificate_flops: int = 0
    made: int = 0
    rejected: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[tuple[str, ...], ...] = ()

    def __str__(self) -> str:
        lines = [
            f"{self.form} of {self.n1} x {self.n2} points, {self.outputs} outputs",
            f"method       {self.method} ({self.reason})",
            f"backward     {self.backward}",
            f"certificate  {self.certificate_flops:.3g} flops: all outputs in batches, two points by plain autograd",
            f"flops        {self.flops:.3g}",
            f"memory       {self.bytes / 1e6:.4g} MB of {self.memory / 1e6:.4g} MB",
        ]
        for i, group in enumerate(self.groups):
            lines.append(
                f"tiles        {group.samples} points kept, {group.streamed} at once, {group.outputs} outputs"
                + (f" (parameters {i + 1} of {len(self.groups)})" if len(self.groups) > 1 else "")
            )
        table = [("parameter", "entries", "uses", "way", "flops", "instead of"), *self.rows]
        widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
        for row in table:
            cells = [
                cell.rjust(w) if i in (1, 2, 4) else cell.ljust(w)
                for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        lines += [f"not {method}: {why}" for method, why in self.rejected.items()]
        return "\n".join(lines)


def make_plan(work: Workload, memory: int, reason: str = "") -> Plan:
    """The cheapest plan that stays within `memory` bytes.

    Raises:
        MemoryBudgetError: not even one point and output of the largest parameter fits; it names the smallest budget
            that would do.
    """
    fixed = work.held + work.result_bytes
    usable = memory - memory // SPARE - fixed
    plans: list[tuple[int, int, tuple[Group, ...]]] = []
    for choose in (_cheapest, _smallest):
        for cap in _caps(work, choose):
            groups = [_tiled(group, work, usable) for group in _packed(work, choose, cap)]
            if all(group.samples for group in groups):
                plans.append((sum(_cost(group, work) for group in groups), len(plans), tuple(groups)))
    if not plans:
        raise _too_little(work, memory, fixed)
    _, _, best = min(plans)
    peak = fixed + max(_tile_bytes(group, work) for group in best)
    flops = sum(_flops(group, work) for group in best)
    method = "tapped run, " + ("all points of a tile at once" if work.vectorized else "one point at a time")
    rejected: dict[str, str] = {}
    if work.form == "blocks":
        by_products = _products_flops(work)
        compared = "{:.3g} flops instead of {:.3g}"
        same_numbers = work.number == work.element  # products run in the model's dtype
        if same_numbers and by_products + work.n2 * work.outputs * FLOPS_PER_PRODUCT < flops:
            rejected[method], method = compared.format(flops, by_products), PRODUCTS
            flops, reason = by_products, "there are many outputs"
        else:
            rejected[PRODUCTS] = compared.format(by_products, flops)
    certificate = certificate_flops(work)
    return Plan(
        method=method,
        reason=reason,
        form=work.form,
        n1=work.n1,
        n2=work.n2,
        outputs=work.outputs,
        groups=best,
        backward=_backward(best, work),
        flops=flops + certificate,
        bytes=peak,
        memory=memory,
        certificate_flops=certificate,
        made=sum(_made(group, work) for group in best),
        rejected=rejected,
        rows=tuple(
            _row(share, way, work) for group in best for share, way in zip(group.shares, group.ways, strict=True)
        ),
    )


def certificate_flops(work: Workload) -> int:
    """The outputs of all points in batches, and two points by plain autograd and by the tapped run."""
    points = work.n1 + (0 if work.same or work.one_sided else work.n2)
    sets = 1 if work.same or work.one_sided else 2
    own = sum(share.making("jacobian", 1) for share in work.shares)
    # Plain autograd's backward pass makes the gradients of the weights too.
    return points * work.forward_flops + sets * 2 * (8 * work.forward_flops + 3 * work.backward_flops + 2 * own)


def _cheapest(share: Share, work: Workload) -> Way:
    """The way with fewest flops and writes, when every point is made once."""
    made = work.n1 + (0 if work.same or work.one_sided else work.n2)
    pairs = work.n1 if work.one_sided else work.n1 * work.n2

    def cost(way: Way) -> int:
        written = made * share.kept(way, work.outputs)
        flops = made * share.making(way, work.outputs) + pairs * share.pair(way, work.outputs, work.form)
        return flops + FLOPS_PER_WRITE * written

    return min(share.ways(work.form), key=cost)


def _smallest(share: Share, work: Workload) -> Way:
    """The way that keeps least."""
    return min(share.ways(work.form), key=lambda way: share.kept(way, work.outputs))


Choice = Callable[[Share, Workload], Way]


def _sizes(work: Workload, choose: Choice) -> list[int]:
    return [share.kept(choose(share, work), 1) for share in work.shares]


def _caps(work: Workload, choose: Choice) -> list[int]:
    """Largest sizes of a group to try: all parameters in one, halves of that, down to the largest parameter."""
    sizes = _sizes(work, choose)
    total, largest = sum(sizes), max(sizes)
    caps = [total]
    while caps[-1] // 2 > largest:
        caps.append(caps[-1] // 2)
    return caps if caps[-1] == largest else [*caps, largest]


def _packed(work: Workload, choose: Choice, cap: int) -> list[Group]:
    groups: list[list[Share]] = [[]]
    room = cap
    for share, size in zip(work.shares, _sizes(work, choose), strict=True):
        if groups[-1] and size > room:
            groups.append([])
            room = cap
        groups[-1].append(share)
        room -= size
    return [Group(tuple(g), tuple(choose(share, work) for share in g)) for g in groups]


def _tile_bytes(group: Group, work: Workload) -> int:
    """The peak while one tile stays and another is made and contracted with it."""
    return _kept_bytes(group, work) + max(_making_bytes(group, work), _product_bytes(group, work))


def _kept_bytes(group: Group, work: Workload) -> int:
    return 0 if work.one_sided else group.samples * group.kept(group.outputs) * work.number


def _making_bytes(group: Group, work: Workload) -> int:
    """While a piece is made: its pass, its signals, and its parts, one of them twice while it is laid out."""
    k, points = group.outputs, group.streamed
    made = points * group.kept(k) * work.number * (2 if work.one_sided else 1)
    own = sum(share.entries for share in group.shares if share.kind == "own")
    signals = points * (k * (work.probes + own) + own)
    layout = max(
        share.kept("grams", k) + (k * share.size if way == "jacobian" else 0)
        for share, way in zip(group.shares, group.ways, strict=True)
    )
    # One point's graph at a time, or all of them.
    live = (points if work.vectorized else 1) * work.activations
    if not work.vectorized:
        signals += work.probes + own
    # What moves backwards through the graph: the largest activations, some at a time.
    backward = live // 2 * (k if _at_once(group, work) else 1)
    return made + live + backward + (signals + points * layout) * work.element


def _product_bytes(group: Group, work: Workload) -> int:
    if work.one_sided:
        return 0
    streamed = group.streamed * group.kept(group.outputs)
    squared = {"blocks": group.outputs**2, "per output": group.outputs}.get(work.form, 1)
    block = 2 * group.samples * max(group.samples, group.streamed) * squared
    arranged = max(share.kept(way, group.outputs) for share, way in zip(group.shares, group.ways, strict=True))
    scratch = 3 * SCRATCH if "grams" in group.ways else 0
    scratch = min(scratch, 3 * block * max(share.positions for share in group.shares) ** 2)
    return (streamed + block + scratch + group.streamed * arranged) * work.number


def _at_once(group: Group, work: Workload) -> bool:
    """Whether one backward pass serves all outputs of a tile: where the matrix products of one alone are small."""
    return work.vectorized and group.outputs > 1 and group.streamed * work.positions < FEW_ROWS


def _backward(groups: Sequence[Group], work: Workload) -> Backward:
    return "all outputs at once" if all(_at_once(group, work) for group in groups) else "one output at a time"


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
    """Tiles of so many outputs: the largest pieces that leave room for the largest kept tile."""
    n = max(work.n1, work.n2)

    def fits(samples: int, streamed: int) -> bool:
        return _tile_bytes(replace(group, samples=samples, streamed=streamed, outputs=outputs), work) <= usable

    if not fits(1, 1):
        return group
    if work.one_sided:
        streamed = _largest(n, lambda t: fits(1, t))
        return replace(group, samples=streamed, streamed=streamed, outputs=outputs)
    # What stays decides how often points are made again, what is made at once how many passes that takes.
    most, tried = _largest(n, lambda s: fits(s, 1)), []
    while most:
        samples = ceil(n / ceil(n / most))  # tiles of equal size
        streamed = _largest(samples, partial(fits, samples))
        streamed = ceil(samples / ceil(samples / streamed))
        tried.append(replace(group, samples=samples, streamed=streamed, outputs=outputs))
        most = most * 3 // 4
    return min(tried, key=lambda choice: _cost(choice, work))


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
    """How many times a point is made (for one tile of outputs), the repeated ones included."""
    if work.one_sided:
        return work.n1 * ceil(work.outputs / group.outputs)
    tiles = ceil(work.n1 / group.samples)
    times = ceil(work.outputs / group.outputs)
    if work.same:
        # The tiles of the upper triangle; of blocks, all pairs of tiles of outputs too.
        kept = tiles * times
        if work.form != "blocks":
            return times * (work.n1 + sum(min(work.n1, work.n1 - (i + 1) * group.samples) for i in range(tiles - 1)))
        points = [min(group.samples, work.n1 - i * group.samples) for i in range(tiles)] * times
        return sum(sum(points[i:]) for i in range(kept))
    return times * work.n1 + tiles * times * work.n2 * (times if work.form == "blocks" else 1)


def _flops(group: Group, work: Workload) -> int:
    k = group.outputs
    making = work.forward_flops + k * work.backward_flops
    products = 0
    for share, way in zip(group.shares, group.ways, strict=True):
        making += share.making(way, k)
        products += share.pair(way, work.outputs, work.form)
    if work.one_sided:
        ones = [s for s, way in zip(group.shares, group.ways, strict=True) if way == "grams" and s.positions > 1]
        return _made(group, work) * making + work.n1 * sum(s.pair("grams", work.outputs, "trace") for s in ones)
    return _made(group, work) * making + products * _pairs(group, work)


def _pairs(group: Group, work: Workload) -> int:
    """Pairs of points that are multiplied: of a Gram matrix, those of the pieces on and above the diagonal."""
    if not work.same:
        return work.n1 * work.n2
    total = 0
    for start in range(0, work.n1, group.samples):
        points = min(group.samples, work.n1 - start)
        total += sum((b.stop - b.start) * (points - b.start) for b in bands(points))
        total += points * (work.n1 - start - points)
    return total


def bands(points: int) -> list[slice]:
    """A tile's points in a few pieces, so that only those on and above the diagonal of its Gram are multiplied."""
    size = max(16, ceil(points / 4))
    return [slice(i, min(i + size, points)) for i in range(0, points, size)]


def _cost(group: Group, work: Workload) -> int:
    made = _made(group, work)
    passes = ceil(made / (group.streamed if work.vectorized else 1))
    return _flops(group, work) + FLOPS_PER_WRITE * group.kept(group.outputs) * made + FLOPS_PER_PASS * passes


def _row(share: Share, way: Way, work: Workload) -> tuple[str, ...]:
    """One line of the plan's table."""
    points = work.n1 + (0 if work.same or work.one_sided else work.n2)
    pairs = work.n1 if work.one_sided else work.n1 * work.n2

    def flops(w: Way) -> int:
        return points * share.making(w, work.outputs) + pairs * share.pair(w, work.outputs, work.form)

    other = [w for w in share.ways(work.form) if w != way]
    names = {
        "grams": f"Grams of {share.positions} positions",
        "jacobian": "own Jacobian" if share.kind != "own" else "own Jacobian by autograd",
    }
    why = share.why
    if other:
        least = "more flops" if flops(other[0]) >= flops(way) else "more memory"
        why = f"{names[other[0]]}: {flops(other[0]):.3g} flops, {least}"
    name = share.name if share.bias is None else f"{share.name}, {share.bias.rpartition('.')[2]}"
    return name, str(share.size), str(share.uses), names[way], f"{flops(way):.3g}", why


def _products_flops(work: Workload) -> int:
    """Of the whole matrix by one row of J, and J's product with it, for every point and output of the right side."""
    own = sum(share.making("jacobian", 1) for share in work.shares)
    pairs = work.n1 * (work.n1 + 1) // 2 if work.same else work.n1 * work.n2
    row = work.forward_flops // work.outputs + work.backward_flops + own
    # Forward mode: activations by the weights' tangents, and their own tangents by the weights; those of the input are
    # zero, and the run itself is shared by several products.
    first = work.shares[0].making("jacobian", 1) if work.shares else 0
    return work.outputs * (work.n2 * row + pairs * (work.forward_flops + own - first))


def _too_little(work: Workload, memory: int, fixed: int) -> MemoryBudgetError:
    finest = _packed(work, _smallest, max(_sizes(work, _smallest)))
    least = fixed + max(_tile_bytes(replace(g, samples=1, streamed=1, outputs=1), work) for g in finest)
    least = -(-least * SPARE // (SPARE - 1)) + SPARE
    largest = max(work.shares, key=lambda share: share.kept(_smallest(share, work), 1)).name
    return MemoryBudgetError(
        f"the empirical ntk ({work.form}, {work.n1} x {work.n2} points, {work.outputs} outputs)",
        f"does not fit into {memory} bytes: its result takes {work.result_bytes}, and the parts of `{largest}` come "
        "on top",
        f"Give memory={least} or more, fewer points, or parameters= to leave some out",
    )
