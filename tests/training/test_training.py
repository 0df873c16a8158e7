"""A Training is one value; pairings that mean nothing raise when it is made."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from priorscope import Training
from priorscope.errors import NotCoveredError, PriorscopeError
from priorscope.training.optimizer import is_sgd
from tests.unchecked import messages


def test_the_default_is_gradient_flow_to_the_end():
    t = Training()
    assert t.is_flow
    assert t.end == math.inf
    assert Training(time=3.0).end == 3.0
    assert Training(learning_rate=0.1, steps=7).end == 7


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"steps": 3}, "steps"),
        ({"learning_rate": 0.1}, "learning_rate"),
        ({"learning_rate": 0.1, "steps": 3, "time": 1.0}, "time"),
        ({"until_loss": 0.1}, "until_loss"),
        ({"until_loss": 0.1, "learning_rate": 0.1}, "learning_rate"),
        ({"momentum": 0.9}, "momentum"),
        ({"momentum": 1.0, "learning_rate": 0.1, "steps": 3}, "momentum"),
        ({"nesterov": True, "learning_rate": 0.1, "steps": 3}, "nesterov"),
        ({"learning_rate": -0.1, "steps": 3}, "learning_rate"),
        ({"learning_rate": 0.1, "steps": -2}, "steps"),
        ({"time": -1.0}, "time"),
        ({"batch_size": 0, "learning_rate": 0.1, "steps": 3}, "batch_size"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"weight_decay": math.inf}, "weight_decay"),
        ({"optimizer": "adman", "learning_rate": 0.1, "steps": 3}, "optimizer"),
        ({"until_loss": 0.0, "learning_rate": 0.1, "steps": 3}, "until_loss"),
        ({"until_loss": math.inf, "learning_rate": 0.1, "steps": 3}, "until_loss"),
        ({"until_loss": math.nan, "learning_rate": 0.1, "steps": 3}, "until_loss"),
    ],
)
def test_pairings_that_mean_nothing_raise(fields, name):
    with pytest.raises(PriorscopeError, match=rf"Training\({name}=\)"):
        Training(**fields)


@pytest.mark.parametrize("fields", [{"optimizer": "adam"}, {"optimizer": torch.optim.Adam}])
def test_what_predictions_do_not_cover_is_named(fields):
    t = Training(learning_rate=0.1, steps=3, **fields)
    with pytest.raises(NotCoveredError, match=list(fields)[-1]):
        t.require_covered()


def test_sgd_on_squared_losses_is_covered():
    for fields in ({"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}, {"batch_size": 4}, {"loss": "mse"}):
        Training(learning_rate=0.1, steps=3, **fields).require_covered(given_start=False)
    decays = Training(weight_decay=0.1, decay_to="zero")
    decays.require_covered(given_start=True)
    with pytest.raises(NotCoveredError, match="start=model"):
        decays.require_covered(given_start=False)
    Training(decay_to="zero").require_covered(given_start=False)  # nothing decays


def test_a_schedule_is_a_tuple_with_one_rate_a_step():
    t = Training(learning_rate=[0.3, 0.2, 0])
    assert (t.learning_rate, t.steps, t.end) == ((0.3, 0.2, 0.0), 3, 3)
    assert t == Training(learning_rate=np.array([0.3, 0.2, 0.0]), steps=3)
    assert t == Training(learning_rate=lambda step: (0.3, 0.2, 0.0)[step], steps=3)
    assert hash(t) == hash(replace(t))
    assert [t.rate_at(step) for step in range(3)] == [0.3, 0.2, 0.0]
    assert (t.largest_rate, t.schedule, Training(learning_rate=0.1, steps=2).schedule) == (0.3, t.learning_rate, None)
    assert t.scaled(2.0).learning_rate == (0.6, 0.4, 0.0)
    assert t.stated_rate == "scheduled from 0.3 to 0"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"learning_rate": [0.1, -0.1]}, "rate at step 1 is -0.1"),
        ({"learning_rate": [0.1, 0.2], "steps": 3}, "schedule of 2 steps, steps=3"),
        ({"learning_rate": lambda step: 0.1}, "without steps"),
        ({"learning_rate": lambda step: math.nan, "steps": 2}, "rate at step 0 is nan"),
        ({"learning_rate": [0.1], "time": 1.0}, "with a learning_rate"),
    ],
)
def test_schedules_that_mean_nothing_raise(fields, words):
    with pytest.raises(PriorscopeError, match=words):
        Training(**fields)


def test_an_optimizer_has_one_name_in_any_case():
    t = Training(learning_rate=0.1, steps=3, optimizer="SGD", momentum=0.9)
    assert t == Training(learning_rate=0.1, steps=3, momentum=0.9)
    assert t.uncovered() == []
    assert is_sgd(t)
    assert Training(learning_rate=0.1, steps=3, optimizer="AdamW").optimizer == "adamw"


@pytest.mark.parametrize("fields", [{"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1}])
@pytest.mark.parametrize("optimizer", ["Adam", torch.optim.Adam])
def test_what_belongs_to_sgd_stands_beside_no_other_optimizer(fields, optimizer):
    with pytest.raises(NotCoveredError, match="inside a factory"):
        Training(learning_rate=0.1, steps=3, optimizer=optimizer, **fields)


@pytest.mark.parametrize("optimizer", ["LBFGS", torch.optim.LBFGS])
def test_an_optimizer_that_needs_a_closure_is_refused(optimizer):
    with pytest.raises(NotCoveredError, match="closure"):
        Training(learning_rate=0.1, steps=3, optimizer=optimizer)


UNCHECKED = """
from math import inf, nan
import numpy as np, torch
from priorscope import Training
from priorscope.errors import PriorscopeError

descent = {"learning_rate": 0.1, "steps": 3}
for fields in (
    {"steps": inf}, {"steps": nan}, {"steps": 2.5}, {"steps": True}, {"steps": "3"}, {"batch_size": 2.5},
    {"learning_rate": "a"}, {"learning_rate": torch.ones(2)}, {"momentum": None}, {"weight_decay": 1j},
    {"learning_rate": [0.1, "a", 0.1]}, {"until_loss": "low"}, {"optimizer": 3}, {"loss": ["mse"]},
):
    try:
        Training(**{**descent, **fields})
        print("nothing was raised for", fields)
    except PriorscopeError as error:
        print(error)
assert Training(learning_rate=torch.tensor(0.25), steps=2).learning_rate == 0.25
t = Training(learning_rate=np.float32(0.5), steps=np.int64(3), batch_size=4.0, until_loss=torch.tensor(0.25))
print(t.learning_rate, t.steps, t.batch_size, t.until_loss)
"""


def test_what_is_no_number_is_named_and_numbers_become_pythons_own():
    *errors, numbers = messages(UNCHECKED)
    named = ["steps"] * 5 + ["batch_size", "learning_rate", "learning_rate", "momentum", "weight_decay"]
    named += ["learning_rate", "until_loss", "optimizer", "loss"]
    assert [error.split("=)")[0] for error in errors] == [f"Training({name}" for name in named]
    assert "rate at step 1 is 'a'" in errors[-4]
    assert numbers == "0.5 3 4 0.25"


def test_an_epochs_batches():
    def sizes(size, points):
        return Training(learning_rate=0.1, steps=3, batch_size=size).batch_sizes(points)

    assert (sizes(None, 10), sizes(10, 10), sizes(12, 10)) == ((10,), (10,), (10,))
    assert (sizes(4, 10), sizes(5, 10), sizes(1, 2)) == ((4, 4, 2), (5, 5), (1, 1))


def test_the_mean_over_mini_batches():
    """half_sse sums over the batch: a step is b/n of the full one. mse is the batch's mean: it is the full one."""
    batches = {"learning_rate": 0.1, "steps": 3, "batch_size": 4}
    assert Training(**batches).mean_scale(8, 3) == 0.5
    assert Training(**batches).mean_scale(10, 3) == (0.4, 0.4, 0.2)
    assert Training(**batches, loss="mse").mean_scale(10, 3) == 2 / 30


def test_a_mean_loss_is_half_sse_at_another_rate():
    same = Training(loss="mse", learning_rate=0.6, momentum=0.5, steps=4).on_half_sse(4, 3)
    assert same == Training(learning_rate=0.6 * 2 / 12, momentum=0.5, steps=4)
    assert Training(loss="mse", time=6.0).on_half_sse(4, 3).time == 1.0
    assert Training().on_half_sse(4, 3) == Training()
    rest = Training(loss="mse", learning_rate=[0.6, 0.3], weight_decay=0.5, until_loss=0.2).on_half_sse(4, 3)
    assert rest.learning_rate == pytest.approx((0.1, 0.05))
    assert (rest.weight_decay, rest.until_loss) == pytest.approx((3.0, 1.2))
    batches = Training(loss="mse", learning_rate=0.6, steps=4, batch_size=2)
    assert batches.on_half_sse(4, 3).learning_rate == pytest.approx(0.6 * 2 / 6)
    assert batches.on_half_sse(3, 1).learning_rate == pytest.approx((0.6, 1.2, 0.6, 1.2))


def test_mse_is_two_over_n_o_of_half_sse():
    f, y = torch.randn(4, 3), torch.randn(4, 3)
    half_sse = 0.5 * (f - y).square().sum()
    assert torch.allclose(torch.nn.functional.mse_loss(f, y), half_sse * Training(loss="mse").loss_scale(4, 3))


def test_a_schedule_may_come_from_a_generator_or_be_of_one_entry():
    with pytest.raises(PriorscopeError, match=r"rate at step 1 is -1\.0"):
        Training(learning_rate=(rate for rate in [0.1, -1.0]))
    for one in ([0.1], torch.tensor([0.1], dtype=torch.float64), np.array([0.1])):
        assert Training(learning_rate=one).schedule == (0.1,)
        with pytest.raises(PriorscopeError, match="a schedule of 1 steps, steps=5"):
            Training(learning_rate=one, steps=5)
    assert Training(learning_rate=torch.tensor(0.5), steps=5).learning_rate == 0.5


def test_a_loss_that_is_not_squared_is_no_multiple_of_half_sse():
    with pytest.raises(NotCoveredError, match="not squared"):
        Training("cross_entropy", learning_rate=0.1, steps=3).on_half_sse(10, 3)
