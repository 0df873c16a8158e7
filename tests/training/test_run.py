import copy

import pytest
import torch
from torch import nn

from priorscope import Initialization, Training
from priorscope.errors import DataError, ModelError, NotCoveredError, PriorscopeError, PriorscopeWarning, RatesError
from priorscope.network.linearize import linearize
from priorscope.training.run import Run, train
from tests.cases import EMPIRICAL, mlp
from tests.oracles import jacobian_by_loop

LOSSES = {
    "half_sse": lambda f, y: ((f - y) ** 2).sum() / 2,
    "mse": nn.MSELoss(),
    "cross_entropy": nn.CrossEntropyLoss(),
}


def by_hand(model, x, y, t: Training, rates=None, batches=None):
    """Plain arithmetic: θ ← θ − η v, v ← β v + c·g + λ(θ − target). Outputs at every step."""
    model = copy.deepcopy(model)
    rates = rates or {name: 1.0 for name, _ in model.named_parameters()}
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    velocity = {name: torch.zeros_like(p) for name, p in start.items()}
    outputs = [model(x).detach()]
    for step in range(t.steps):
        index = batches[step] if batches else slice(None)
        loss = LOSSES[t.loss](model(x[index]), y[index])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, p), g in zip(model.named_parameters(), gradients, strict=True):
                if rates[name] == 0:
                    continue
                target = start[name] if t.decay_to == "start" else 0.0
                g = rates[name] * g + t.weight_decay * (p - target)
                velocity[name] = t.momentum * velocity[name] + g
                p.sub_(t.rate_at(step) * (g + t.momentum * velocity[name] if t.nesterov else velocity[name]))
        outputs.append(model(x).detach())
    return torch.stack(outputs), model


def problem(outputs=2, n=6):
    return mlp(3, 8, outputs, activation=nn.Tanh), torch.randn(n, 3), torch.randn(n, outputs)


TRAININGS = [
    Training(learning_rate=0.05, steps=30),
    Training(learning_rate=0.05, steps=30, loss="mse", momentum=0.9),
    Training(learning_rate=0.02, steps=30, momentum=0.8, nesterov=True),
    Training(learning_rate=0.05, steps=30, weight_decay=0.3),
    Training(learning_rate=0.05, steps=30, weight_decay=0.3, decay_to="zero", momentum=0.5),
    Training(learning_rate=0.05, steps=30, weight_decay=0.3, momentum=0.5, nesterov=True),
    Training(learning_rate=lambda step: 0.05 * (1 - step / 30), steps=30, weight_decay=0.3, momentum=0.5),
    Training(learning_rate=[0.0, 0.05, 0.02] * 10, momentum=0.5, nesterov=True, loss="mse"),
]


@pytest.mark.parametrize("t", TRAININGS)
@pytest.mark.parametrize("rated", [False, True], ids=["standard", "rates"])
def test_every_training_equals_the_loop_by_hand(t, rated):
    model, x, y = problem()
    rates = {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 2.0, "2.bias": 0.1} if rated else None
    run = train(model, x, y, t, rates, at=range(31))
    expected, by_hand_model = by_hand(model, x, y, t, rates)
    torch.testing.assert_close(run.outputs, expected, rtol=1e-12, atol=1e-12)
    for p, q in zip(run.model.parameters(), by_hand_model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run.losses, torch.stack([LOSSES[t.loss](f, y) for f in expected]))
    assert run.rates == (rates or {name: 1.0 for name, _ in model.named_parameters()})


def test_the_model_itself_is_untouched():
    model, x, y = problem()
    before, inputs = copy.deepcopy(model.state_dict()), x.clone()
    run = train(model, x, y, TRAININGS[0])
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(x, inputs)
    assert not torch.equal(run.model[0].weight, model[0].weight)
    torch.testing.assert_close(run.outputs[-1], run.model(x).detach())
    torch.testing.assert_close(run.outputs[0], model(x).detach())


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_linearised_networks_follow_the_kernel_recursion(case, momentum):
    model, x, x_new = case.model(), case.points(4), case.points(3, seed=7)
    rates = {name: 0.5 + 0.1 * i for i, (name, _) in enumerate(model.named_parameters())}
    j, j_new = (jacobian_by_loop(model, points, rates).flatten(0, 1) for points in (x, x_new))
    f, f_new = (model(points).detach().flatten() for points in (x, x_new))
    y = torch.randn(model(x).shape)
    rate = 0.5 / float(torch.linalg.eigvalsh(j @ j.T)[-1])
    run = train(
        linearize(model), x, y, Training(learning_rate=rate, steps=25, momentum=momentum), rates, x_new, at=range(26)
    )
    v, v_new = torch.zeros_like(f), torch.zeros_like(f_new)
    for step in range(26):
        torch.testing.assert_close(run.outputs[step].flatten(), f_new, rtol=1e-8, atol=1e-8)
        residual = f - y.flatten()
        v, v_new = momentum * v + j @ j.T @ residual, momentum * v_new + j_new @ j.T @ residual
        f, f_new = f - rate * v, f_new - rate * v_new


def test_mini_batches_go_through_each_epoch_in_the_seeded_order():
    model, x, y = problem(n=7)
    t = Training(learning_rate=0.05, steps=10, batch_size=3, momentum=0.5)
    generator = torch.Generator().manual_seed(4)
    batches = [batch for _ in range(4) for batch in torch.randperm(7, generator=generator).split(3)]
    expected, _ = by_hand(model, x, y, t, batches=batches)
    run = train(model, x, y, t, seed=4, at=range(11))
    torch.testing.assert_close(run.outputs, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run.losses[-1], LOSSES["half_sse"](expected[-1], y))
    assert torch.equal(run.outputs, train(model, x, y, t, seed=4, at=range(11)).outputs)
    assert not torch.equal(run.outputs, train(model, x, y, t, seed=5, at=range(11)).outputs)
    full = Training(learning_rate=0.05, steps=10, batch_size=7, momentum=0.5)
    torch.testing.assert_close(train(model, x, y, full).outputs[-1], by_hand(model, x, y, full)[0][-1])


def test_which_steps_are_recorded():
    model, x, y = problem()
    run = train(model, x, y, Training(learning_rate=1e-3, steps=1000))
    steps = run.steps.tolist()
    assert steps[0] == 0
    assert steps[1] == 1
    assert steps[-1] == 1000
    assert steps == sorted(set(steps))
    assert 35 <= len(steps) <= 50
    assert run.outputs.shape == (len(steps), 6, 2)
    t = Training(learning_rate=1e-3, steps=20)
    assert train(model, x, y, t, at=[5, 5, 3]).steps.tolist() == [0, 3, 5, 20]
    assert train(model, x, y, t, at=torch.tensor([7])).steps.tolist() == [0, 7, 20]
    assert train(model, x, y, t, at=4).steps.tolist() == [0, 4, 20]
    assert train(model, x, y, Training(learning_rate=1e-3, steps=0)).steps.tolist() == [0]
    for at in ([21], [-1], [0.5], ["x"], [float("nan")]):
        with pytest.raises(DataError, match="at"):
            train(model, x, y, t, at=at)


def test_until_loss_stops_at_the_first_step_that_reached_it():
    model, x, y = problem()
    t = Training(learning_rate=0.05, steps=400)
    losses = train(model, x, y, t, at=range(401)).losses
    bound = float(losses[100])
    run = train(model, x, y, Training(learning_rate=0.05, steps=400, until_loss=bound), at=[10, 50, 300])
    first = int((losses <= bound).nonzero()[0])
    assert run.converged_at == first
    assert run.steps.tolist() == [0, 10, 50, first]
    torch.testing.assert_close(run.outputs[-1], run.model(x).detach())
    mini = Training(learning_rate=0.05, steps=400, until_loss=bound, batch_size=3)
    run = train(model, x, y, mini, at=range(0, 401, 50))
    assert run.converged_at is not None
    assert run.converged_at % 50 == 0
    assert train(model, x, y, Training(learning_rate=0.05, steps=3, until_loss=1e-9)).converged_at is None


@pytest.mark.parametrize("batch_size", [None, 3])
def test_a_training_that_diverges_ends_with_a_warning_and_a_finite_record(batch_size):
    model, x, y = problem()
    with pytest.warns(PriorscopeWarning, match="not finite at step"):
        run = train(model, x, 10 * y, Training(learning_rate=1e9, steps=500, batch_size=batch_size), at=range(501))
    assert run.diverged_at is not None
    assert run.diverged_at <= 500
    assert bool(torch.isfinite(run.outputs).all())
    assert bool(torch.isfinite(run.losses).all())
    assert int(run.steps[-1]) <= run.diverged_at


def test_distances_are_in_the_norm_of_the_rates():
    model, x, y = problem()
    rates = {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 2.0, "2.bias": 0.1}
    run = train(model, x, y, TRAININGS[0], rates)
    start, end = model.state_dict(), run.model.state_dict()
    trained = {name: c for name, c in rates.items() if c}
    moved = sum(float(((end[name] - start[name]) ** 2).sum()) / c for name, c in trained.items())
    size = sum(float((start[name] ** 2).sum()) / c for name, c in trained.items())
    assert float(run.distance[0]) == 0.0
    torch.testing.assert_close(float(run.distance[-1]), moved**0.5)
    torch.testing.assert_close(float(run.relative_distance[-1]), (moved / size) ** 0.5)


@pytest.mark.parametrize("case", [case for case in EMPIRICAL if "t" in case.name], ids=repr)
def test_ties_stay_tied(case):
    model, x = case.model(), case.points(4)
    y = torch.randn(model(x).shape)
    run = train(model, x, y, Training(learning_rate=0.01, steps=20), at=range(21))
    torch.testing.assert_close(run.outputs, by_hand(model, x, y, Training(learning_rate=0.01, steps=20))[0].flatten(2))
    assert len(list(run.model.parameters())) == len(list(model.parameters()))


def test_frozen_parameters_and_rates_of_an_initialization():
    model, x, y = problem()
    model[0].weight.requires_grad_(False)
    init = Initialization(2.0, 0.1, "ntk")
    run = train(model, x, y, TRAININGS[0], init)
    assert torch.equal(run.model[0].weight, model[0].weight)
    assert not run.model[0].weight.requires_grad
    assert run.rates == init.rates(model)
    assert not torch.equal(run.model[2].weight, model[2].weight)


@pytest.mark.parametrize(
    "optimizer", ["adam", "Adam", lambda params, lr: torch.optim.Adam(params, lr=lr)], ids=["adam", "Adam", "factory"]
)
def test_other_optimizers_get_one_group_per_rate(optimizer):
    model, x, y = problem()
    rates = {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 2.0, "2.bias": 0.5}
    run = train(model, x, y, Training(learning_rate=0.01, steps=20, optimizer=optimizer), rates)
    hand = copy.deepcopy(model)
    groups = [
        {"params": [hand[0].weight], "lr": 0.005},
        {"params": [hand[2].weight], "lr": 0.02},
        {"params": [hand[2].bias], "lr": 0.005},
    ]
    adam = torch.optim.Adam(groups)
    for _ in range(20):
        adam.zero_grad()
        LOSSES["half_sse"](hand(x), y).backward()
        adam.step()
    torch.testing.assert_close(run.outputs[-1], hand(x).detach(), rtol=1e-10, atol=1e-10)


def test_a_schedule_is_torchs_own_scheduler_for_any_optimizer():
    model, x, y = problem()
    rates = {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 2.0, "2.bias": 0.5}
    t = Training(learning_rate=[0.05 * 0.9**k for k in range(20)], optimizer="adam")
    run, hand = train(model, x, y, t, rates), copy.deepcopy(model)
    groups = [
        {"params": [hand[0].weight, hand[2].bias], "lr": 0.025},
        {"params": [hand[2].weight], "lr": 0.1},
    ]
    adam = torch.optim.Adam(groups)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(adam, 0.9)
    for _ in range(20):
        adam.zero_grad()
        LOSSES["half_sse"](hand(x), y).backward()
        adam.step()
        scheduler.step()
    torch.testing.assert_close(run.outputs[-1], hand(x).detach(), rtol=1e-10, atol=1e-10)


def test_classes():
    model, x, _ = problem(outputs=3)
    y = torch.tensor([0, 1, 2, 0, 1, 1])
    onehot = nn.functional.one_hot(y, 3).double() - 1 / 3
    expected, _ = by_hand(model, x, onehot, TRAININGS[0])
    torch.testing.assert_close(train(model, x, y, TRAININGS[0]).outputs[-1], expected[-1])
    t = Training(loss="cross_entropy", learning_rate=0.1, steps=20)
    run = train(model, x, y, t)
    torch.testing.assert_close(run.outputs[-1], by_hand(model, x, y, t)[0][-1])
    torch.testing.assert_close(run.losses[0], nn.functional.cross_entropy(model(x), y).detach())
    fewer = torch.zeros(6, dtype=torch.int64)
    assert train(model, x, fewer, TRAININGS[0]).outputs.shape[-1] == 3, "the model knows of classes that y lacks"
    signs = torch.tensor([1, -1, 1, 1, -1, -1])
    assert train(mlp(3, 4, 1), x, signs, TRAININGS[0]).outputs.shape[-1] == 1


def test_an_interrupt_leaves_the_model_as_it_was(capsys):
    model, x, y = problem()
    before, calls = copy.deepcopy(model.state_dict()), []

    class Stop(torch.optim.SGD):
        def step(self, closure=None):
            calls.append(1)
            if len(calls) > 3:
                raise KeyboardInterrupt
            return super().step(closure)

    t = Training(learning_rate=0.1, steps=10, optimizer=lambda params, lr: Stop(params, lr=lr))
    with pytest.raises(KeyboardInterrupt):
        train(model, x, y, t, progress=True)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert "training" in capsys.readouterr().err


def test_shapes_and_dtypes():
    x, y = torch.randn(5, 3), torch.randn(5)
    flat = nn.Sequential(mlp(3, 4, 1), nn.Flatten(0))
    for model in (mlp(3, 4, 1), flat):
        assert train(model, x, y, TRAININGS[0], at=[0]).outputs.shape == (2, 5, 1)
        assert train(model, x, y[:, None], TRAININGS[0], record=x[:2], at=[0]).outputs.shape == (2, 2, 1)
    run = train(mlp(3, 4, 1).float(), x, y, TRAININGS[0], record=x.float())
    assert run.outputs.dtype == run.losses.dtype == run.distance.dtype == torch.float32

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(3, 1)

        def forward(self, a, b):
            return self.net(a + b)

    pairs = {"a": x, "b": x.float()}
    t = Training(learning_rate=0.01, steps=4, batch_size=2)
    assert train(Pair(), pairs, y, t).outputs.shape == (5, 5, 1)
    assert train(Pair(), (x, x), y, t).outputs.shape == (5, 5, 1)


def test_a_run_is_saved_without_its_model(tmp_path):
    model, x, y = problem()
    run = train(model, x, y, TRAININGS[0])
    again = Run.load(run.save(tmp_path / "run.npz"))
    assert torch.equal(again.outputs, run.outputs)
    assert again.model is None
    assert again.rates == run.rates
    assert run.to_dict()["steps"] == run.steps.tolist()


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(len(x), 1)


class InPlaceInput(nn.Linear):
    def forward(self, x):
        return super().forward(x.mul_(2))


class Detached(nn.Linear):
    def forward(self, x):
        return super().forward(x).detach()


class Two(nn.Linear):
    def forward(self, x):
        return super().forward(x), x


@pytest.mark.parametrize(
    ("model", "error", "words"),
    [
        (nn.Sequential(nn.Linear(3, 1), nn.BatchNorm1d(1)), ModelError, r"`1` \(nn.BatchNorm1d\).*eval"),
        (nn.Sequential(nn.Dropout(0.1), nn.Linear(3, 1)), ModelError, r"`0` \(nn.Dropout\).*eval"),
        (nn.Linear(4, 1), ModelError, "does not run on x"),
        (nn.Linear(3, 2), DataError, "1 columns, the model 2 outputs"),
        (Noisy(3, 1), ModelError, "called twice"),
        (InPlaceInput(3, 1), ModelError, "in place"),
        (Detached(3, 1), ModelError, "no gradient"),
        (Two(3, 1), ModelError, "is a tuple"),
        (
            nn.Sequential(nn.Linear(3, 1), nn.Flatten(0), nn.Unflatten(0, (1, 5))),
            ModelError,
            "first axis counts",
        ),
        (nn.Linear(3, 1).requires_grad_(False), RatesError, "no parameter with a rate"),
    ],
)
def test_models_that_cannot_be_trained(model, error, words):
    x, y = torch.randn(5, 3), torch.randn(5)
    before = x.clone()
    with pytest.raises(error, match=words):
        train(model, x, y, TRAININGS[0])
    assert torch.equal(x, before)


def test_data_that_do_not_fit():
    model, x, y = problem()
    bad = x.clone()
    bad[0, 0] = torch.nan
    for arguments, words in [
        ((x, y[:3]), "y: has shape"),
        ((bad, y), "x: has 1 entries"),
        ((x, y[:, :1]), "1 columns"),
        ((x, torch.tensor([0, 1, 2, 3, 0, 0])), "4 classes"),
    ]:
        with pytest.raises(DataError, match=words):
            train(model, *arguments, TRAININGS[0])
    with pytest.raises(DataError, match="record: has 1"):
        train(model, x, y, TRAININGS[0], record=bad)
    with pytest.raises(ModelError, match="does not run on record"):
        train(model, x, y, TRAININGS[0], record=torch.randn(3, 5))
    cross = Training(loss="cross_entropy", learning_rate=0.1, steps=2)
    with pytest.raises(DataError, match="holds no classes"):
        train(model, x, y, cross)


def test_trainings_and_rates_that_are_refused():
    model, x, y = problem()
    with pytest.raises(NotCoveredError, match=r"gradient flow.*learning_rate and steps"):
        train(model, x, y, Training(time=3.0))
    for extra in ({"momentum": 0.9}, {"weight_decay": 0.1}):
        with pytest.raises(NotCoveredError, match="factory"):
            train(model, x, y, Training(learning_rate=0.1, steps=2, optimizer="adam", **extra))
    with pytest.raises(NotCoveredError, match="closure"):
        train(model, x, y, Training(learning_rate=0.1, steps=2, optimizer="lbfgs"))
    with pytest.raises(PriorscopeError, match=r"not in torch.optim.*adamw"):
        train(model, x, y, Training(learning_rate=0.1, steps=2, optimizer="adman"))
    with pytest.raises(PriorscopeError, match="could not be made"):
        train(model, x, y, Training(learning_rate=0.1, steps=2, optimizer=lambda params: None))
    with pytest.raises(RatesError, match="has no rate"):
        train(model, x, y, TRAININGS[0], {"0.weight": 1.0})
    model[0].bias.requires_grad_(False)
    with pytest.raises(RatesError, match=r"`0.bias`.*frozen"):
        train(model, x, y, TRAININGS[0], {name: 1.0 for name, _ in model.named_parameters()})
