"""TorchJD's autogram engine: Gramians of the Jacobian, layer by layer. It knows Gram matrices only."""

import networks
from torchjd.autogram import Engine

PACKAGES = ("torchjd", "torch")


def method(task, arrays):
    model, x = networks.load(task, arrays), networks.inputs(task, arrays)
    engine = Engine(model, batch_dim=0)

    def blocks():
        out = model(x)
        return engine.compute_gramian(out).reshape(*out.shape, *out.shape)

    def trace():
        """One Gramian for each output: none of the off-diagonal blocks is computed."""
        out = model(x)
        outputs = out.shape[1]
        gram = engine.compute_gramian(out[:, 0])
        for k in range(1, outputs):  # each forward pass serves one Gramian only
            gram += engine.compute_gramian(model(x)[:, k])
        return gram / outputs

    return {"blocks": blocks, "trace": trace}[task["form"]]
