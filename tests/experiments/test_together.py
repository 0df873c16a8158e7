"""Networks trained together are what `ps.train` makes of each alone, by any optimizer; so are their kernels."""

import pytest
import torch
from torch import nn

from priorscope.errors import NotCoveredError
from priorscope.experiments.together import distances, tangent_kernels, train_together
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.network.initialization import Initialization
from priorscope.training.run import train
from priorscope.training.training import Training

LAW = Initialization(2.0, 0.1, "ntk")
SEEDS = (3, 4, 5)
TRAININGS = {
    "plain": Training(learning_rate=0.2, steps=20),
    "mini-batches": Training(learning_rate=0.1, momentum=0.9, batch_size=2, steps=20),
    "decay": Training(learning_rate=0.2, weight_decay=0.1, decay_to="zero", steps=20),
    "adam": Training(learning_rate=0.05, optimizer="adam", steps=20),
    "adamw, mini-batches": Training(learning_rate=0.05, optimizer="adamw", batch_size=2, steps=20),
    "rmsprop": Training(learning_rate=0.01, optimizer="rmsprop", steps=20),
}


def network(seed):
    return LAW.apply_(nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double(), seed)


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    draw = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((5, 2), (5,), (4, 2))]
    return draw[0], draw[1], draw[2]


@pytest.mark.parametrize("name", TRAININGS)
def test_each_network_is_trained_as_alone(name, data):
    x, y, new = data
    networks, rates = [network(seed) for seed in SEEDS], LAW.rates(network(0))
    together = train_together(networks, x, y, TRAININGS[name], rates, new, SEEDS)
    for i, seed in enumerate(SEEDS):
        alone = train(networks[i], x, y, TRAININGS[name], rates=rates, record=new, seed=seed)
        torch.testing.assert_close(together.outputs[i], alone.outputs[-1, :, 0], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(together.initial[i], alone.outputs[0, :, 0])
        torch.testing.assert_close(distances(together, rates)[0][i], alone.distance[-1])
        torch.testing.assert_close(distances(together, rates)[1][i], alone.relative_distance[-1])


def test_outputs_are_those_of_the_moment_when_the_loss_was_reached(data):
    x, y, new = data
    networks, rates = [network(seed) for seed in SEEDS], LAW.rates(network(0))
    target = Training(learning_rate=0.2, steps=400, until_loss=0.05)
    together = train_together(networks, x, y, target, rates, new)
    for i in range(len(SEEDS)):
        alone = train(networks[i], x, y, target, rates=rates, record=new)
        assert int(together.steps[i]) == alone.converged_at
        torch.testing.assert_close(together.outputs[i], alone.outputs[-1, :, 0])
        assert float(together.losses[i]) == pytest.approx(float(alone.losses[-1]))
    short = train_together(networks, x, y, Training(learning_rate=0.2, steps=1, until_loss=1e-9), rates, new)
    assert short.steps.tolist() == [-1, -1, -1]


def test_tangent_kernels_are_those_of_the_weights_that_are_given(data):
    x, y, new = data
    networks, rates = [network(seed) for seed in SEEDS], LAW.rates(network(0))
    together = train_together(networks, x, y, TRAININGS["plain"], rates, new)
    for weights, when in ((together.start, 0), (together.end, 1)):
        found = tangent_kernels(networks[0], weights, rates, new)
        for i in range(len(SEEDS)):
            model = (networks[i], train(networks[i], x, y, TRAININGS["plain"], rates=rates).model)[when]
            torch.testing.assert_close(found[i], EmpiricalNTK(model, rates=rates)(new))


@pytest.mark.parametrize(
    ("training", "cause"),
    [
        (Training(), "is a flow"),
        (Training(loss="mse", learning_rate=0.1, steps=2), "the loss mse"),
        (Training(learning_rate=0.1, steps=2, optimizer="adafactor"), "the optimizer adafactor"),
        (Training(learning_rate=0.1, steps=2, optimizer=torch.optim.Adam), "the optimizer <class"),
    ],
)
def test_what_a_stack_would_do_otherwise_is_refused(training, cause, data):
    x, y, new = data
    with pytest.raises(NotCoveredError, match=cause):
        train_together([network(0)], x, y, training, LAW.rates(network(0)), new)
