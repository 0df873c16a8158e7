"""Kernels tile by tile: the same numbers whatever the memory, and no more of it than was allowed."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import nn

from priorscope import Initialization, infinite_width
from priorscope.errors import MemoryBudgetError
from priorscope.kernels.infinite.lifetimes import last_uses
from priorscope.kernels.infinite.registry import is_leaf
from priorscope.kernels.infinite.tiles import Need, tiles
from priorscope.network.watching import watch

INIT = Initialization(2.0, 0.1, parameterization="ntk")


def fully_connected() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))


def pooled() -> nn.Module:
    convolutions = [nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.GELU()]
    return nn.Sequential(*convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1))


CASES = {"fully connected": (fully_connected, (5,), 15), "pooled": (pooled, (2, 4, 4), 6)}


@pytest.mark.parametrize("gram", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_memory_does_not_change_the_kernels(name: str, gram: bool):
    make, shape, n = CASES[name]
    model = INIT.apply_(make(), 0).double()
    x = torch.randn(n, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[-1] = x[0]
    other = None if gram else torch.cat([x[: n // 2], x[:2] + 1])
    whole = infinite_width(model, INIT)(x, other)
    with pytest.raises(MemoryBudgetError, match=r"the infinite-width kernels.*Give memory=") as error:
        infinite_width(model, INIT, memory=n * n * 16 if gram else n * len(other) * 16)(x, other)
    least = int(str(error.value).split("Give memory=")[1].split(" ")[0])
    for memory in (least, least + 3 * (least - n * n * 16) if gram else 3 * least):
        limit = infinite_width(model, INIT, memory=memory)
        for found, expected in zip(limit(x, other), whole, strict=True):
            assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
            assert not gram or torch.equal(found, found.T)
            assert not gram or (found[0, 0] - found[0, n - 1]).abs() <= 1e-14 * found[0, 0]
    assert torch.allclose(limit.ntk.diagonal(x), infinite_width(model, INIT).ntk.diagonal(x), rtol=1e-12)


@pytest.mark.parametrize("memory", [0, -5, 1.5, True])
def test_a_memory_that_is_no_number_of_bytes(memory):
    with pytest.raises(MemoryBudgetError, match="positive number of bytes"):
        infinite_width(fully_connected(), Initialization.torch_default(), memory=memory)


def test_results_beyond_the_memory_raise_before_any_work():
    limit = infinite_width(INIT.apply_(fully_connected(), 0), INIT, memory=10**6)
    with pytest.raises(MemoryBudgetError, match="1000 and 1000 points"):
        limit(torch.randn(1000, 5))


@pytest.mark.parametrize(("n", "m", "gram"), [(7, 7, True), (7, 3, False), (3, 20, False), (64, 64, True)])
@pytest.mark.parametrize("entries", [1, 2, 5, 30, 10**4])
def test_tiles_cover_each_entry_once(n: int, m: int, gram: bool, entries: int):
    need, seen = Need(pair=100, layer=3, result=16), torch.zeros(n, m)
    for rows, columns, square in tiles(n, m, gram, need, n * m * 16 + 100 * entries):
        part = seen[rows, columns]
        assert part.numel() <= entries
        assert not square or part.shape[1] >= part.shape[0]
        seen[rows, columns] += 1
        if gram:
            assert columns.start >= rows.start
            assert square == (columns.start == rows.start)
    assert bool((seen >= torch.triu(torch.ones(n, m)) if gram else seen == 1).all())
    assert float(seen.max()) == 1


def test_a_deep_network_keeps_few_layers():
    """Of a plain stack each value is asked for only once, by the next node."""
    layers: list[nn.Module] = []
    for _ in range(20):
        layers += [nn.Linear(4, 4), nn.ReLU()]
    graph = watch(nn.Sequential(*layers, nn.Linear(4, 1)), torch.randn(3, 4), is_leaf)
    last = last_uses(graph)
    nodes = [node for node in graph.needed() if node.data and node.kind != "input"]
    assert all(last[node.index] - node.index <= 6 for node in nodes)


MEASURED: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "relu": lambda: (nn.Sequential(nn.Linear(50, 8), nn.ReLU(), nn.Linear(8, 1)), (1500, 50)),
    "elu": lambda: (nn.Sequential(nn.Linear(50, 8), nn.ELU(), nn.Linear(8, 1)), (400, 50)),
    "pooled": lambda: (pooled(), (12, 2, 14, 14)),
}
SCRIPT = """
import sys, threading, time
import torch
from priorscope import infinite_width
from priorscope.kernels.infinite.limit import Limit
from tests.kernels.infinite.test_tiles import INIT, MEASURED

def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))

model, shape = MEASURED[sys.argv[1]]()
Limit._fast = lambda self, *arguments: None
limit, x = infinite_width(INIT.apply_(model, 0).double(), INIT, memory=int(sys.argv[2])), torch.randn(shape).double()
limit(x[:2])
before, most, done = resident(), 0, False

def watch():
    global most
    while not done:
        most = max(most, resident())
        time.sleep(0.002)

thread = threading.Thread(target=watch)
thread.start()
limit(x)
done = True
thread.join()
print(most - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("memory", [150 * 2**20, 400 * 2**20])
@pytest.mark.parametrize("name", MEASURED)
def test_the_process_grows_by_no_more_than_the_memory(name: str, memory: int):
    run = subprocess.run([sys.executable, "-c", SCRIPT, name, str(memory)], capture_output=True, text=True, check=True)
    grown = int(run.stdout)
    print(f"{name}: {grown / 2**20:.0f} of {memory / 2**20:.0f} MiB")
    assert grown <= memory
