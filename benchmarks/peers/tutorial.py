"""The two ways of PyTorch's own tutorial, "Neural Tangent Kernels": torch.func over functional_call, and einsum.

Source: docs.pytorch.org/tutorials/intermediate/neural_tangent_kernels.html; `jacobians` is its Jacobian contraction,
`products` its products of Jacobians with vectors.
"""

import networks
import torch
from torch.func import functional_call, jacrev, jvp, vjp, vmap
from torch.utils._pytree import tree_map

PACKAGES = ("torch",)


def method(task, arrays):
    model = networks.load(task, arrays)
    readout = networks.READOUTS.get(task["network"], lambda out: out)
    params = {name: value.detach() for name, value in model.named_parameters()}
    x1 = networks.inputs(task, arrays)
    x2 = networks.inputs(task, arrays, "x2") if task["cross"] else x1

    def single(params, x):
        point = tree_map(lambda leaf: leaf.unsqueeze(0), x)
        args, kwargs = ((), point) if isinstance(point, dict) else ((point,), {})
        return torch.atleast_1d(readout(functional_call(model, params, args, kwargs)).squeeze(0))

    compute = {"jacobians": jacobians, "products": products}[task["options"]["way"]]
    return lambda: compute(single, params, x1, x2, task["form"])


def jacobians(single, params, x1, x2, form):
    rows1 = [j.flatten(2) for j in vmap(jacrev(single), (None, 0))(params, x1).values()]
    rows2 = [j.flatten(2) for j in vmap(jacrev(single), (None, 0))(params, x2).values()]
    equation = "Naf,Mbf->NaMb" if form == "blocks" else "Naf,Maf->NM"
    kernel = sum(torch.einsum(equation, j1, j2) for j1, j2 in zip(rows1, rows2, strict=True))
    return kernel if form == "blocks" else kernel / rows1[0].shape[1]


def products(single, params, x1, x2, form):
    def pair(x1, x2):
        _, pull = vjp(lambda params: single(params, x1), params)

        def times(vector):
            return jvp(lambda params: single(params, x2), (params,), pull(vector))[1]

        zeros = single(params, x1)
        return vmap(times)(torch.eye(len(zeros), dtype=zeros.dtype))

    kernel = vmap(vmap(pair, (None, 0)), (0, None))(x1, x2)
    if form == "blocks":
        return kernel.permute(0, 2, 1, 3)
    return torch.einsum("NMaa->NM", kernel) / kernel.shape[-1]
