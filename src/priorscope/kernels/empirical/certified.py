"""Finds a way of making a kernel's parts that the certificate accepts, and its plan.

There are three, from the fastest: the tapped run of all points of a tile at once, the tapped run of one point at a
time, and plain autograd of one point at a time. Why one was passed over is the plan's reason.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch

from ...data.inputs import Inputs, count
from ...errors import MemoryBudgetError, ModelError, NotExactError, brief
from ...network.function import pair_of_points
from ...network.reads import check_reads
from ...network.snapshot import Snapshot
from .certificate import check_batch, check_outputs, not_differentiable, reference, wrong_parameter
from .contraction import Tiles
from .factors import Form
from .plan import make_plan
from .tapping import OtherCallsError, Passes, account, looped, vectorized
from .workload import workload

STEPS: tuple[tuple[Passes, bool], ...] = ((vectorized, True), (looped, True), (looped, False))
"""(how a pass runs, whether structured uses are tapped), in the order in which they are tried."""

OTHER_CALLS = "the model makes other calls for some points than for others"


@dataclass(frozen=True)
class Job:
    """One call: what is computed, of which points (x2 = None: a Gram matrix), in which memory and dtype.

    layers: {parameter that is differentiated: its layer}.
    """

    form: Form
    x1: Inputs
    x2: Inputs | None
    layers: Mapping[str, str]
    memory: int
    dtype: torch.dtype


def certified(snapshot: Snapshot, job: Job, only_autograd: bool = False) -> Tiles:
    """The plan, and a way of making parts that gives autograd's own gradients on two points of each input.

    Args:
        only_autograd: nothing is tapped: for modules that use parameters in other ways at other points.

    Raises:
        NotExactError: outputs or gradients depend on the batch or on chance, or values are read in Python.
        ModelError: plain autograd cannot differentiate the module. MemoryBudgetError: no plan fits.
    """
    pairs = [snapshot.cast(pair_of_points(x)) for x in ((job.x1,) if job.x2 is None else (job.x1, job.x2))]
    check_reads(snapshot.model, pairs[0], lambda: snapshot.outputs(pairs[0]))
    for pair in pairs:
        check_outputs(snapshot, pair, 2)
    reason = "every use of a parameter has a rule, or is autograd's"
    steps = STEPS[-1:] if only_autograd else STEPS
    reason = OTHER_CALLS if only_autograd else reason
    for passes, structured in steps:
        last = not structured
        try:
            tiles = _tiles(snapshot, job, pairs[0], passes, structured, reason)
            wrong = next(filter(None, (wrong_parameter(tiles, reference(snapshot, p, tiles.names)) for p in pairs)), "")
        except MemoryBudgetError:
            raise
        except OtherCallsError:
            reason = OTHER_CALLS
            continue
        except ModelError as error:
            # The module itself runs: what fails is its tapped run, or its run under torch.func.
            if last:
                raise
            reason = f"the tapped run refuses: {brief(error.__cause__ or error)}"
            continue
        except Exception as error:
            if last:
                raise not_differentiable(error) from error
            reason = f"torch.func refuses: {brief(error)}"
            continue
        if not wrong:
            return tiles
        reason = f"the rebuilt gradient of `{wrong}` is wrong"
    raise NotExactError(
        f"`{wrong}`",
        "its gradient at a point depends on the other points of the batch, or on chance",
        "Call model.eval(), and use layers that see one point at a time",
    )


def _tiles(snapshot: Snapshot, job: Job, point: Inputs, passes: Passes, structured: bool, reason: str) -> Tiles:
    seen = account(snapshot, point, tuple(job.layers), structured)
    points = count(job.x1), count(job.x1 if job.x2 is None else job.x2)
    work = workload(seen, snapshot.values, job.form, points, job.x2 is None, job.layers, passes is vectorized)
    work = replace(work, accumulator=torch.finfo(job.dtype).bits // 8)
    plan = make_plan(work, job.memory, reason)
    names = tuple(job.layers)
    return Tiles(snapshot, seen, passes, plan, names, job.dtype, lambda run, x: check_batch(snapshot, run, x))
