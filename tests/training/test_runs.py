import warnings

import pytest
import torch
from torch import nn

from priorscope import Initialization, Training
from priorscope.errors import DataError, MemoryBudgetError, ModelError, NotCoveredError, PriorscopeWarning
from priorscope.network.linearize import linearize
from priorscope.training import runs as module
from priorscope.training.run import train
from priorscope.training.runs import Runs, train_many
from tests.cases import EMPIRICAL, mlp
from tests.training.test_run import TRAININGS, Detached


def make(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return mlp(3, 8, 2, activation=nn.Tanh)


def data(n: int = 6, outputs: int = 2):
    generator = torch.Generator().manual_seed(9)
    return torch.randn(n, 3, generator=generator), torch.randn(n, outputs, generator=generator)


def one_by_one(maker, seeds, *arguments, **keywords):
    return [train(maker(seed), *arguments, **keywords) for seed in seeds]


@pytest.mark.parametrize("t", TRAININGS)
@pytest.mark.parametrize("rated", [False, True], ids=["standard", "rates"])
def test_it_equals_train_for_each_seed(t, rated):
    x, y = data()
    rates = {"0.weight": 0.5, "0.bias": 0.0, "2.weight": 2.0, "2.bias": 0.1} if rated else None
    x_new = torch.randn(4, 3)
    runs = train_many(make, [3, 1, 4], x, y, t, rates, x_new, at=range(0, 31, 5))
    alone = one_by_one(make, [3, 1, 4], x, y, t, rates, x_new, at=range(0, 31, 5))
    assert runs.outputs.shape == (3, 7, 4, 2)
    torch.testing.assert_close(runs.outputs, torch.stack([run.outputs for run in alone]), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(runs.losses, torch.stack([run.losses for run in alone]), rtol=1e-10, atol=1e-10)
    assert torch.equal(runs.steps, alone[0].steps)
    assert torch.equal(runs.final, runs.outputs[:, -1])
    assert runs.seeds.tolist() == [3, 1, 4]
    assert runs.rates == alone[0].rates


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
@pytest.mark.parametrize("wrap", [lambda model: model, linearize], ids=["network", "linearised"])
def test_every_architecture(case, wrap):
    x = case.points(4)
    y = torch.randn(case.model()(x).shape)
    t = Training(learning_rate=0.02, steps=12, momentum=0.9, weight_decay=0.1)

    def maker(seed: int) -> nn.Module:
        return wrap(case.model(seed))

    runs = train_many(maker, 2, x, y, t, at=range(13))
    alone = torch.stack([run.outputs for run in one_by_one(maker, range(2), x, y, t, at=range(13))])
    torch.testing.assert_close(runs.outputs, alone, rtol=1e-10, atol=1e-10)
    assert float((alone[0] - alone[1]).abs().max()) > 1e-3, "the networks differ"


def test_classes_with_cross_entropy():
    x, y = data()[0], torch.tensor([0, 1, 1, 0, 1, 0])
    t = Training(loss="cross_entropy", learning_rate=0.1, steps=20)
    runs = train_many(make, 3, x, y, t)
    alone = one_by_one(make, range(3), x, y, t)
    torch.testing.assert_close(runs.outputs, torch.stack([run.outputs for run in alone]))
    torch.testing.assert_close(runs.losses, torch.stack([run.losses for run in alone]))


def test_each_network_stops_when_it_has_reached_the_loss():
    x, y = data()
    t = Training(learning_rate=0.05, steps=300, until_loss=1.2, momentum=0.5)
    x_new = torch.randn(3, 3)
    runs = train_many(make, 6, x, y, t, record=x_new)
    alone = one_by_one(make, range(6), x, y, t, record=x_new)
    assert runs.converged_at.tolist() == [run.converged_at for run in alone]
    assert len(set(runs.converged_at.tolist())) > 2, "at different steps"
    for i, run in enumerate(alone):
        torch.testing.assert_close(runs.final[i], run.outputs[-1], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(runs.losses[i, -1], run.losses[-1], rtol=1e-10, atol=1e-10)
        after = runs.steps >= run.converged_at
        assert bool((runs.outputs[i, after] == runs.final[i]).all())
        torch.testing.assert_close(runs.outputs[i, ~after], run.outputs[:-1][: int((~after).sum())])
    cap = int(runs.converged_at.sort().values[2])
    some = train_many(make, 6, x, y, Training(learning_rate=0.05, steps=cap, until_loss=1.2, momentum=0.5))
    assert torch.equal(some.converged_at, torch.where(runs.converged_at <= cap, runs.converged_at, -1))
    assert (some.converged_at == -1).any()
    assert (some.converged_at >= 0).any()


def test_chunks_do_not_matter(monkeypatch):
    x, y = data()
    whole = train_many(make, 7, x, y, TRAININGS[1])
    for size in (1, 3):
        monkeypatch.setattr(module, "_fitting", lambda *_, size=size: size)
        parts = train_many(make, 7, x, y, TRAININGS[1])
        torch.testing.assert_close(parts.outputs, whole.outputs, rtol=1e-12, atol=1e-12)
        assert torch.equal(parts.seeds, whole.seeds)


def test_memory():
    x, y = data()
    small = train_many(make, 5, x, y, TRAININGS[0], memory=4000)
    torch.testing.assert_close(small.outputs, train_many(make, 5, x, y, TRAININGS[0]).outputs)
    with pytest.raises(MemoryBudgetError, match="for one network"):
        train_many(make, 5, x, y, TRAININGS[0], memory=100)


def test_a_maker_may_return_one_module_again_and_again(monkeypatch):
    x, y = data()
    model, init = make(0), Initialization(2.0, 0.1)
    fresh = train_many(lambda seed: init.apply_(make(0), seed), 4, x, y, TRAININGS[0])
    for size in (4, 2):
        monkeypatch.setattr(module, "_fitting", lambda *_, size=size: size)
        again = train_many(lambda seed: init.apply_(model, seed), 4, x, y, TRAININGS[0])
        assert torch.equal(again.outputs, fresh.outputs)


def test_rates_of_an_initialization_and_frozen_parameters():
    x, y = data()
    init = Initialization(2.0, 0.1, "ntk")

    def frozen(seed: int) -> nn.Module:
        model = make(seed)
        model[0].weight.requires_grad_(False)
        return model

    runs = train_many(frozen, 2, x, y, TRAININGS[0], init)
    alone = torch.stack([run.outputs for run in one_by_one(frozen, range(2), x, y, TRAININGS[0], init)])
    torch.testing.assert_close(runs.outputs, alone, rtol=1e-10, atol=1e-10)


def test_networks_that_diverge_are_named_and_the_others_go_on():
    x, y = data()

    def one_is_wild(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = mlp(3, 8, 2, activation=nn.Identity)
        with torch.no_grad():
            model[2].weight.mul_(100.0 if seed == 1 else 1.0)
        return model

    t = Training(learning_rate=0.01, steps=20)
    with pytest.warns(PriorscopeWarning, match="seeds 1 is not finite"):
        runs = train_many(one_is_wild, 3, x, y, t, at=range(21))
    step = int(runs.diverged_at[1])
    assert step > 0
    assert runs.diverged_at[[0, 2]].tolist() == [-1, -1]
    assert bool(torch.isfinite(runs.outputs[1, :step]).all())
    assert bool(runs.outputs[1, step:].isnan().all())
    torch.testing.assert_close(runs.outputs[2], train(one_is_wild(2), x, y, t, at=range(21)).outputs)

    other = torch.randn(4, 3)
    with pytest.warns(PriorscopeWarning, match="seeds 1 is not finite"):
        recorded = train_many(one_is_wild, 3, x, y, t, record=other, at=[0])
    torch.testing.assert_close(recorded.final[2], train(one_is_wild(2), x, y, t, record=other).outputs[-1])
    assert bool(recorded.final[1].isnan().all())


def test_a_stack_of_other_weights_is_found():
    x, y = data()
    keep = module.copies

    def other(models):
        for values in keep(models):
            yield {name: tensor * (1 + 1e-6) for name, tensor in values.items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "copies", other)
        with pytest.raises(ModelError, match="something else in a stack"):
            train_many(make, 2, x, y, TRAININGS[0])


class Branching(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2.0 if float(self.weight.detach().sum()) > 0 else 1.0)


def test_refused():
    x, y = data()
    with pytest.raises(NotCoveredError, match=r"batch_size=2.*loop"):
        train_many(make, 2, x, y, Training(learning_rate=0.1, steps=2, batch_size=2))
    with pytest.raises(NotCoveredError, match=r"adam.*loop"):
        train_many(make, 2, x, y, Training(learning_rate=0.1, steps=2, optimizer="adam"))
    with pytest.raises(NotCoveredError, match="gradient flow"):
        train_many(make, 2, x, y, Training())
    with pytest.raises(DataError, match="seeds"):
        train_many(make, [], x, y, TRAININGS[0])
    with pytest.raises(ModelError, match=r"cannot be stacked.*ps.train in a loop"):
        train_many(lambda seed: Branching(3, 2), 2, x, y, TRAININGS[0])
    with pytest.raises(ModelError, match="no gradient"):
        train_many(lambda seed: Detached(3, 2), 2, x, y, TRAININGS[0])
    with pytest.raises(ModelError, match="differ in name or shape"):
        train_many(lambda seed: mlp(3, 4 + seed, 2), 2, x, y, TRAININGS[0])
    with pytest.raises(ModelError, match=r"nn.Dropout\).*eval"):
        train_many(lambda seed: nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)), 2, x, y, TRAININGS[0])
    with pytest.raises(DataError, match="2 columns"):
        train_many(lambda seed: nn.Linear(3, 1), 2, x, y, TRAININGS[0])


def test_layers_without_a_stacked_form_are_named():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(3, 2, batch_first=True)

        def forward(self, x):
            return self.cell(x[:, None])[0][:, 0]

    x, y = data()
    with pytest.raises(ModelError, match=r"train_many\(Recurrent\).*loop"):
        train_many(lambda seed: Recurrent(), 2, x, y, TRAININGS[0])


def test_shapes_dtypes_and_saving(tmp_path):
    x, y = data(outputs=1)
    runs = train_many(lambda seed: mlp(3, 4, 1).float(), 2, x, y[:, 0], TRAININGS[0], record=x[:2], at=[3, 7])
    assert runs.outputs.shape == (2, 4, 2, 1)
    assert runs.outputs.dtype == runs.losses.dtype == torch.float32
    again = Runs.load(runs.save(tmp_path / "runs.npz"))
    assert torch.equal(again.outputs, runs.outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train_many(make, 1, *data(), Training(learning_rate=0.1, steps=0))
