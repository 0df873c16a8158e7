"""nngeometry's Gram matrix (its hooks on Linear and Conv2d). It knows Gram matrices only."""

import networks
from nngeometry.gram import GramMatrix
from torch.utils.data import DataLoader, TensorDataset

PACKAGES = ("nngeometry", "torch")


def method(task, arrays):
    model, x = networks.load(task, arrays), networks.inputs(task, arrays)
    batch = min(task["options"]["batch"], len(x))

    def gram(function):
        loader = DataLoader(TensorDataset(x.clone()), batch_size=batch)
        return GramMatrix(model, loader, function=function).data

    def blocks():
        return gram(lambda points: model(points)).permute(1, 0, 3, 2).detach()

    def trace():
        """One Gram matrix for each output: none of the off-diagonal blocks is computed."""
        outputs = model(x[:1]).shape[1]
        return sum(_one(gram, model, k) for k in range(outputs)) / outputs

    return {"blocks": blocks, "trace": trace}[task["form"]]


def _one(gram, model, output):
    return gram(lambda points: model(points)[:, output : output + 1])[0, :, 0, :].detach()
