"""What every kernel must satisfy. A new kernel adds one row to the table in test_kernels.py."""

import torch
from torch import Tensor

from priorscope.kernels import Kernel


def check_kernel(kernel: Kernel, x: Tensor, tolerance: float = 1e-12) -> None:
    gram = kernel(x)
    scale = float(gram.abs().max())
    assert gram.shape == (len(x), len(x))
    assert float((gram - gram.T).abs().max()) <= tolerance * scale, "symmetry"
    assert float((kernel.diagonal(x) - gram.diagonal()).abs().max()) <= tolerance * scale, "diagonal agreement"
    values = torch.linalg.eigvalsh(gram.double())
    assert float(values.min()) >= -100 * tolerance * float(values.max()), "positive semi-definite"
    half = len(x) // 2
    parts = torch.cat([kernel(x[:half], x), kernel(x[half:], x)])
    assert float((parts - gram).abs().max()) <= 1e3 * tolerance * scale, "chunk invariance"
    blocks = kernel.blocks(x)
    trace = torch.einsum("iaja->ij", blocks) / blocks.shape[1]
    assert float((trace - gram).abs().max()) <= 1e3 * tolerance * scale, "the trace of the blocks"
    on_data = kernel.on(x)
    assert torch.equal(on_data(x), gram)
    assert float((on_data.cross(x[:2]) - gram[:2]).abs().max()) <= 1e3 * tolerance * scale
