"""The tasks of the experiment `trust`: what is learned, by which network, trained how; to fit, and held out of the fit.

The held-out ones are published ways to leave the lazy regime, as far as a small network can show them: sparse parity,
a single index of high degree, large targets (the rich regime), steps near the limit, heavy momentum, small
initialisation, depth. They are this project's own small versions, not the papers' set-ups.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..data.named import named
from ..network.initialization import Initialization, Parameterization

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
STEPS = 400
WIDE = 256
"""From this width on, a network counts as wide."""


@dataclass(frozen=True)
class Setting:
    """How a task is trained: its targets times `size`, plain steps of `step` times the limit, momentum."""

    name: str
    size: float = 1.0
    step: float = 0.25
    momentum: float = 0.0


GENTLE = Setting("gentle")
LOUD, LOUDER, LOUDEST = Setting("loud", size=5.0), Setting("louder", size=15.0), Setting("loudest", size=50.0)
FAST, FASTER, EDGE = Setting("fast", step=0.8), Setting("faster", step=0.93), Setting("edge", step=0.99)
HEAVY, HEAVIER = Setting("heavy", step=0.25, momentum=0.9), Setting("heavier", step=0.7, momentum=0.9)
USUAL = (GENTLE, LOUD, FAST, HEAVY)


@dataclass(frozen=True)
class Task:
    """One thing to learn, by networks of several widths. hidden: the number of hidden layers."""

    name: str
    inputs: str
    target: str
    features: int
    points: int
    hidden: int
    activation: str
    weight_variance: float
    bias_variance: float
    parameterization: Parameterization
    widths: tuple[int, ...]
    settings: tuple[Setting, ...]
    why: str
    seed: int
    test_points: int = 25

    def data(self) -> tuple[Tensor, Tensor, Tensor]:
        """x (n, d), y (n,) or (n, o), x_new (m, d), float64."""
        generator = torch.Generator().manual_seed(self.seed)
        total = self.points + self.test_points
        if self.inputs == "digits":
            return self._digits(generator, total)
        if self.inputs == "circle":
            angles = 2 * math.pi * torch.rand(total, generator=generator, dtype=torch.float64)
            x = torch.stack([angles.cos(), angles.sin()], 1)
        elif self.inputs == "cube":
            corners = torch.randperm(2**self.features, generator=generator)[:total]
            x = 2.0 * ((corners[:, None] >> torch.arange(self.features)) & 1).to(torch.float64) - 1
        else:
            x = torch.randn(total, self.features, generator=generator, dtype=torch.float64)
        y = TARGETS[self.target](x, generator)
        return x[: self.points], y[: self.points], x[self.points :]

    def _digits(self, generator: torch.Generator, total: int) -> tuple[Tensor, Tensor, Tensor]:
        digits = named("digits")
        images, labels = digits.x.to(torch.float64).flatten(1), digits.y
        classes = (3, 8) if self.target == "signs" else (0, 3, 8)
        places = torch.cat([torch.nonzero(labels == c)[:, 0] for c in classes])
        chosen = places[torch.randperm(len(places), generator=generator)[:total]]
        x = images[chosen]
        x = (x - x.mean()) / x.std()
        hot = torch.stack([labels[chosen] == c for c in classes], 1).to(torch.float64)
        y = hot[:, 0] - hot[:, 1] if self.target == "signs" else 2 * (hot - 1 / len(classes))
        return x[: self.points], y[: self.points], x[self.points :]

    @property
    def initialization(self) -> Initialization:
        return Initialization(self.weight_variance, self.bias_variance, self.parameterization)

    def network(self, width: int, seed: int, dtype: torch.dtype = torch.float32) -> nn.Module:
        """A network of this width, drawn."""
        with torch.random.fork_rng(devices=[]):  # torch draws weights that are then drawn anew
            layers: list[nn.Module] = []
            inputs = self.features
            for _ in range(self.hidden):
                layers += [nn.Linear(inputs, width), ACTIVATIONS[self.activation]()]
                inputs = width
            model = nn.Sequential(*layers, nn.Linear(inputs, self.outputs)).to(dtype)
        return self.initialization.apply_(model, seed)

    @property
    def outputs(self) -> int:
        return 3 if self.target == "three classes" else 1


def _direction(x: Tensor, generator: torch.Generator) -> Tensor:
    """x·w for a random unit vector w."""
    w = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
    return x @ (w / w.norm())


def _teacher(x: Tensor, generator: torch.Generator) -> Tensor:
    """A fixed random network with 30 tanh units, of mean square 1 on the points."""
    first = torch.randn(x.shape[1], 30, generator=generator, dtype=torch.float64) / x.shape[1] ** 0.5
    y = (2 * x @ first).tanh() @ torch.randn(30, generator=generator, dtype=torch.float64)
    return y / y.square().mean().sqrt()


def _hermite(degree: int) -> Any:
    def target(x: Tensor, generator: torch.Generator) -> Tensor:
        u = _direction(x, generator)
        return {2: (u**2 - 1) / 2**0.5, 3: (u**3 - 3 * u) / 6**0.5}[degree]

    return target


TARGETS: dict[str, Any] = {
    "sine of 3 turns": lambda x, generator: (3 * torch.atan2(x[:, 1], x[:, 0])).sin(),
    "sine of 2 turns": lambda x, generator: (2 * torch.atan2(x[:, 1], x[:, 0])).sin(),
    "half circle": lambda x, generator: x[:, 0].sign(),
    "linear": _direction,
    "teacher": _teacher,
    "random signs": lambda x, generator: torch.randn(len(x), generator=generator, dtype=torch.float64).sign(),
    "second Hermite of one index": _hermite(2),
    "third Hermite of one index": _hermite(3),
    "parity of 2": lambda x, generator: x[:, :2].prod(1),
    "parity of 3": lambda x, generator: x[:, :3].prod(1),
}

SHALLOW, DEEP, DEEPER = (16, 64, 256, 1024), (16, 64, 256, 512), (16, 64, 256)

FIT = (
    Task("circle-sine", "circle", "sine of 3 turns", 2, 10, 1, "relu", 2, 0.1, "ntk", SHALLOW, USUAL, "smooth", 1),
    Task("linear", "normal", "linear", 10, 30, 1, "tanh", 1.5, 0.1, "ntk", SHALLOW, USUAL, "easy", 2),
    Task("teacher-relu", "normal", "teacher", 6, 30, 2, "relu", 2, 0.05, "standard", DEEP, USUAL, "smooth", 3),
    Task("parity-2", "cube", "parity of 2", 8, 30, 2, "relu", 2, 0.1, "ntk", DEEP, USUAL, "a low parity", 4),
    Task("random", "normal", "random signs", 10, 20, 1, "gelu", 2, 0.1, "ntk", SHALLOW, USUAL, "nothing to find", 5),
    Task("half-circle", "circle", "half circle", 2, 12, 2, "tanh", 2, 0.1, "ntk", DEEP, USUAL, "a jump", 6),
    Task(
        "index-2",
        "normal",
        "second Hermite of one index",
        10,
        40,
        1,
        "relu",
        2,
        0.05,
        "standard",
        SHALLOW,
        USUAL,
        "one index, low degree",
        7,
    ),
    Task("teacher-deep", "normal", "teacher", 5, 20, 3, "relu", 2, 0.1, "ntk", DEEPER, USUAL, "deeper", 8),
)

_FEATURES = (GENTLE, LOUD, FAST)

HELD_OUT = (
    Task(
        "parity-3",
        "cube",
        "parity of 3",
        10,
        40,
        2,
        "relu",
        2,
        0.1,
        "ntk",
        DEEP,
        _FEATURES,
        "sparse parity, which learned features solve",
        11,
    ),
    Task(
        "index-3",
        "normal",
        "third Hermite of one index",
        10,
        40,
        1,
        "relu",
        2,
        0.1,
        "ntk",
        SHALLOW,
        _FEATURES,
        "a single index of high degree",
        12,
    ),
    Task("digits", "digits", "signs", 64, 40, 2, "relu", 2, 0.05, "standard", DEEP, _FEATURES, "real images", 13),
    Task(
        "digit-classes",
        "digits",
        "three classes",
        64,
        40,
        1,
        "relu",
        2,
        0.05,
        "ntk",
        SHALLOW,
        _FEATURES,
        "several outputs",
        14,
    ),
    Task(
        "small-start",
        "normal",
        "linear",
        5,
        20,
        2,
        "tanh",
        0.3,
        0.01,
        "ntk",
        DEEP,
        (GENTLE, LOUD),
        "small initialisation",
        15,
    ),
    Task(
        "large-targets",
        "circle",
        "sine of 2 turns",
        2,
        12,
        1,
        "tanh",
        2,
        0.1,
        "ntk",
        SHALLOW,
        (GENTLE, LOUDER, LOUDEST),
        "targets large beside the output's scale: the rich regime",
        16,
    ),
    Task(
        "catapult",
        "normal",
        "teacher",
        6,
        25,
        1,
        "relu",
        2,
        0.1,
        "ntk",
        SHALLOW,
        (FAST, FASTER, EDGE),
        "steps near the limit",
        17,
    ),
    Task(
        "momentum",
        "circle",
        "sine of 3 turns",
        2,
        8,
        2,
        "relu",
        2,
        0.05,
        "ntk",
        DEEP,
        (GENTLE, HEAVY, HEAVIER),
        "heavy momentum",
        18,
    ),
    Task("deep-tanh", "normal", "teacher", 8, 25, 3, "tanh", 2, 0.05, "ntk", DEEPER, (GENTLE, LOUD), "four layers", 19),
)


def cases() -> dict[str, Any]:
    """All that decides a result, as `cases/trust.json` has it."""
    return {
        "name": "trust",
        "claim": "a score that is computed before training tells right predictions from wrong ones",
        "wrong": "the median network lies outside the ensemble's 99 % band on more than 10 % of the test points",
        "steps": STEPS,
        "fit": [asdict(task) for task in FIT],
        "held out": [asdict(task) for task in HELD_OUT],
        "full": {"networks": 16, "first seed": 0},
        "quick": {"networks": 8, "widths": [16, 256], "first seed": 0},
        "criterion": "over the held-out tasks: AUROC of the score between right and wrong at least 0.9, also among "
        "widths of at least 256; the rank correlation of the score and the share inside the band is reported",
    }
