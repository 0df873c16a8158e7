"""The infinite networks that are compared, as lists that both libraries build from: (kind, settings...)."""

from collections.abc import Callable

import numpy as np
from side_by_side import Case

WEIGHT_VARIANCE, BIAS_VARIANCE = 2.0, 0.01
CONV = ["conv", "relu"]

LIMITS: dict[str, list[str]] = {
    "fc": ["dense", "relu"] * 3 + ["dense"],
    "cnn": CONV * 3 + ["flatten", "dense"],
    "myrtle5": [*CONV, *CONV, "pool", *CONV, "pool", *CONV, "pool", "mean", "dense"],
    "deep": [*CONV * 20, "mean", "dense"],
}


def arrays(shape: tuple[int, ...], dtype: str) -> Callable[[int], dict[str, np.ndarray]]:
    def made(points: int) -> dict[str, np.ndarray]:
        x1, x2 = np.random.default_rng(0).standard_normal((2, points, *shape)).astype(dtype)
        return {"x1/": x1, "x2/": x2}

    return made


def case(
    network: str, name: str, shape: tuple[int, ...], points: int, dtype: str = "float32", cross: bool = False
) -> Case:
    title = f"{name}, {dtype}"
    sizes = {"layers": LIMITS[network], "weight_variance": WEIGHT_VARIANCE, "bias_variance": BIAS_VARIANCE}
    return Case(title, network, points, ("limits",), arrays(shape, dtype), memory=0, sizes=sizes, cross=cross)
