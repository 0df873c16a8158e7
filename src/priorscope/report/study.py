"""What the report's five answers share, each thing computed once: the kernels on the data, the predictions of
training, and the really trained network."""

import copy
import math
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from ..beliefs.modes import Spectrum, eigenmodes
from ..data.inputs import Labels, encode
from ..errors import DataError, NoRuleError, PriorscopeWarning
from ..kernels.empirical import EmpiricalNTK
from ..kernels.infinite import infinite_width, mismatches
from ..kernels.kernel import Kernel
from ..kernels.on_data import OnData
from ..kernels.pair import KernelPair
from ..network.function import initial_function
from ..network.initialization import Initialization, resolve_rates
from ..training.ensemble import TrainedEnsemble, trained_ensemble
from ..training.run import Run, train
from ..training.training import Training
from ..training.trajectory import Trajectory, trajectory

LEARNED = 0.05
"""The default training ends where the predicted training loss falls to this share of its start, or at STEPS."""
STEPS = 500
RECORDED = 30


@dataclass(frozen=True)
class Points:
    """Training and test points, as the network sees them and as a reader does.

    x (n, ...), y (n,) or (n, o), and the same for the test. raw, raw_test: what is drawn. notes: how they were made.
    classes: their number, where more is known of it than y itself shows.
    """

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor
    raw: Tensor
    raw_test: Tensor
    features: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    name: str = "your data"
    notes: tuple[str, ...] = ()
    classes: int | None = None

    @cached_property
    def labels(self) -> Labels:
        return encode(self.y, len(self.x), self.classes)

    @cached_property
    def test_labels(self) -> Labels:
        labels = encode(self.y_test, len(self.x_test), self.labels.classes, name="y_test")
        if labels.outputs != self.labels.outputs:
            raise DataError(
                "y_test", f"has {labels.outputs} outputs, y has {self.labels.outputs}", "Give the same kind"
            )
        return labels

    @cached_property
    def both(self) -> Tensor:
        """Training points, then test points."""
        return torch.cat([self.x, self.x_test])

    def caption(self, index: int, test: bool = False) -> str:
        """The label of one point, in the user's words."""
        y = (self.y_test if test else self.y)[index]
        if self.labels.classes is not None:
            return str(int(y)) if self.class_names is None else self.class_names[int(y)]
        return ", ".join(f"{float(value):.2g}" for value in y.reshape(-1))


@dataclass(frozen=True)
class Study:
    """One network at its start, its data and its training. Everything below is computed when first asked for."""

    model: nn.Module
    points: Points
    asked: Training | None
    init: Initialization
    seed: int = 0
    progress: bool = False
    stated_width: int | None = None
    warned: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.points.test_labels  # noqa: B018  (bad labels raise before any work)
        initial_function(self.model, self.points.x[:2], self.points.labels.outputs, "the model")

    @cached_property
    def rates(self) -> dict[str, float]:
        return resolve_rates(self.model, self.init)

    @cached_property
    def no_limit(self) -> str:
        """Why the model has no infinite-width limit here; empty where it has one."""
        return self._limit[1]

    @property
    def limit(self) -> KernelPair | None:
        """Both kernels of the infinitely wide network, on the training points; None without a rule."""
        return self._limit[0]

    @cached_property
    def _limit(self) -> tuple[KernelPair | None, str]:
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always", PriorscopeWarning)
                pair = infinite_width(self.model, self.init).on(self.points.x)
        except NoRuleError as error:
            return None, str(error)
        self.warned.extend(str(warning.message) for warning in caught)
        return pair, ""

    def check_weights(self) -> None:
        """Raises DataError where the model's weights do not have the variances of `init`."""
        wrong = mismatches(self.model, self.init)
        if wrong:
            raise DataError(
                "the model's weights",
                "do not have the variances of the initialization: "
                + "; ".join(f"`{one.name}` has {one.found:.3g}, not {one.expected:.3g}" for one in wrong[:4]),
                "Give init= the law that you drew them from, or draw them with init.apply_(model, seed=0); for weights "
                "as they are, Initialization.measured(model)",
            )

    @cached_property
    def own_kernel(self) -> EmpiricalNTK:
        """The network's own kernel at its start, in float64: its small eigenvalues count."""
        return EmpiricalNTK(copy.deepcopy(self.model).double(), rates=self.rates, progress=self.progress)

    @cached_property
    def kernel(self) -> OnData:
        """The NTK that the answers speak of: the limit's, or the network's own where no rule exists."""
        kernel: Kernel = self.own_kernel if self.limit is None else self.limit.ntk
        return kernel.on(self.points.x)

    @cached_property
    def modes(self) -> Spectrum:
        return eigenmodes(self.kernel, self.points.x)

    @cached_property
    def training(self) -> Training:
        """The training asked for; by default plain descent at half the step limit until nearly all is learned."""
        if self.asked is not None:
            return self.asked
        rate = self._flow.step_limit / 2
        path = self._predict(Training(learning_rate=rate, steps=STEPS), None)
        losses = path.losses(torch.arange(STEPS + 1))
        below = (losses <= LEARNED * losses[0]).nonzero()
        steps = int(below[0]) if len(below) else STEPS
        return Training(learning_rate=rate, steps=max(20, steps))

    @cached_property
    def covered(self) -> Training:
        """What predictions speak of: the training itself, or full-batch descent of as many steps where it is outside
        the theory."""
        if not self.outside:
            return replace(self.training, until_loss=None)
        t = self.training
        loss = t.loss if t.is_squared else "half_sse"
        if t.optimizer != "sgd":
            rate = self._predict(Training(loss=loss), None).step_limit / 2
            return Training(loss=loss, learning_rate=rate, steps=t.steps)
        return Training(loss=loss, learning_rate=t.learning_rate, momentum=t.momentum, steps=t.steps)

    @cached_property
    def outside(self) -> list[str]:
        """The fields of the training that the page's theory does not cover: it speaks of modes, which learn alone under
        squared losses only."""
        t = self.training
        decay, loss = f"decay_to={t.decay_to!r} of {t.weight_decay:g}", f"loss={t.loss_name!r}"
        return [loss] * (not t.is_squared) + t.uncovered() + [decay] * t.decays_to_zero

    @cached_property
    def at(self) -> Tensor:
        """The recorded steps, log-spaced, first 0, last the end."""
        end = int(self.training.end)
        spaced = torch.logspace(0, math.log10(max(end, 1)), RECORDED, dtype=torch.float64).round().to(torch.int64)
        return torch.unique(torch.cat([torch.zeros(1, dtype=torch.int64), spaced.clamp_max(end)]))

    @cached_property
    def path(self) -> Trajectory:
        """The predicted mean function (from the network's own start where it has no limit)."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PriorscopeWarning)
            path = self._predict(self.covered, None if self.limit is not None else self.model)
        for warning in caught:
            self.warned.append(str(warning.message))
            warnings.warn(str(warning.message), PriorscopeWarning, stacklevel=2)
        return path

    def from_start(self) -> Trajectory:
        """The prediction for this one network, from its own start."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # `path` has said it
            return self._predict(self.covered, self.model)

    @cached_property
    def _flow(self) -> Trajectory:
        return self._predict(Training(), None)

    def _predict(self, training: Training, start: nn.Module | None) -> Trajectory:
        return trajectory(self.kernel, self.points.x, self.points.labels.values, training, start=start)

    @property
    def diverges(self) -> bool:
        """Whether the prediction is of a learning rate beyond its limit, or of a schedule that ends further off."""
        if self.covered.schedule is not None:
            return bool((self.path.residuals().abs() > 1).any())
        return not self.covered.is_flow and self.covered.largest_rate > self.path.step_limit

    @property
    def last_step(self) -> int:
        """Where the real training ended: its last step, an early end, or the last step whose loss was finite."""
        return int(self.run.steps[-1])

    @cached_property
    def ensemble(self) -> TrainedEnsemble | None:
        if self.limit is None:
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PriorscopeWarning)  # `path` says it
            return trained_ensemble(self.limit, self.points.x, self.points.labels.values, self.covered)

    @cached_property
    def run(self) -> Run:
        """The really trained network, recorded at training and test points."""
        return self.train(self.model)

    def train(self, model: nn.Module) -> Run:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", PriorscopeWarning)
            run = self._train(model)
        self.warned.extend(str(warning.message) for warning in caught)
        return run

    def _train(self, model: nn.Module) -> Run:
        return train(
            model,
            self.points.x,
            self.points.y,
            self.training,
            rates=resolve_rates(model, self.init),
            record=self.points.both,
            at=self.at.tolist(),
            seed=self.seed,
            progress=self.progress,
        )

    @property
    def n(self) -> int:
        return len(self.points.x)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    def width(self) -> int | None:
        """The width that was stated, else the smallest number of outputs of a hidden linear layer."""
        if self.stated_width is not None:
            return self.stated_width
        hidden = [layer.out_features for layer in self.model.modules() if isinstance(layer, nn.Linear)][:-1]
        return min(hidden, default=None)
