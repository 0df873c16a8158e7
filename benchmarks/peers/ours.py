"""priorscope's EmpiricalNTK, as it is in this checkout."""

import networks

from priorscope import EmpiricalNTK

PACKAGES = ("torch",)


def method(task, arrays):
    kernel = _kernel(task, arrays)
    call = kernel.blocks if task["form"] == "blocks" else kernel
    points = _points(task, arrays)
    return lambda: call(*points)


def notes(task, arrays):
    return str(_kernel(task, arrays).plan(*_points(task, arrays), form=task["form"]))


def _kernel(task, arrays):
    readout = networks.READOUTS.get(task["network"])
    return EmpiricalNTK(networks.load(task, arrays), readout=readout, memory=task["memory"])


def _points(task, arrays):
    sides = ("x1", "x2") if task["cross"] else ("x1",)
    return [networks.inputs(task, arrays, side) for side in sides]
