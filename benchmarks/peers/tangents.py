"""neural-tangents' empirical NTK of the same network in plain JAX: images with channels last, as XLA prefers them."""

from functools import partial

import jax
import neural_tangents as nt
from jax import numpy as jnp

PACKAGES = ("neural-tangents", "jax", "jaxlib")


def method(task, arrays):
    network, options = {"mlp": mlp, "cnn": cnn}[task["network"]], task["options"]
    params = weights(arrays)
    x1 = points(arrays["x1/"][: task["points"]])
    x2 = points(arrays["x2/"][: task["points"]]) if task["cross"] else None
    kernel = nt.empirical_ntk_fn(
        network,
        trace_axes=() if task["form"] == "blocks" else (-1,),
        vmap_axes=0,
        implementation=nt.NtkImplementation[options["implementation"]],
    )
    if "batch" in options:
        kernel = nt.batch(kernel, batch_size=min(options["batch"], task["points"]), device_count=0)
    else:
        kernel = jax.jit(kernel)

    def compute():
        out = kernel(x1, x2, params)
        out = out.transpose(0, 2, 1, 3) if task["form"] == "blocks" else out
        return jax.block_until_ready(out)

    return compute


def weights(arrays):
    """[(weight, bias)] of the layers in order; convolutions' weights as (height, width, in, out)."""
    names = [key.removesuffix(".weight") for key in arrays if key.endswith(".weight")]
    layers = [(arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in names]
    moved = [(w.transpose(2, 3, 1, 0) if w.ndim == 4 else w, b) for w, b in layers]
    return jax.tree_util.tree_map(jnp.asarray, moved)


def points(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1) if x.ndim == 4 else x)


def mlp(params, x):
    for w, b in params[:-1]:
        x = jax.nn.relu(x @ w.T + b)
    w, b = params[-1]
    return x @ w.T + b


def cnn(params, x):
    convolve = partial(
        jax.lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    for w, b in params[:-1]:
        x = jax.nn.relu(convolve(x, w) + b)
    w, b = params[-1]
    return x.mean((1, 2)) @ w.T + b
