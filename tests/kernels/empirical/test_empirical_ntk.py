"""Gram, cross, blocks, diagonal and features of many modules, against a loop of plain autograd."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from priorscope.errors import DataError, MemoryBudgetError, ModelError, NotExactError, RatesError
from priorscope.kernels.empirical import EmpiricalNTK
from priorscope.network.initialization import Initialization
from tests.cases import EMPIRICAL, Case, mlp
from tests.kernels.empirical.awkward.case import Net
from tests.kernels.empirical.cases import named, vectors
from tests.oracles import jacobian_by_loop, ntk_by_loop

TOLERANCE = 1e-10


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert not actual.requires_grad
    assert float((actual - expected).abs().max()) <= TOLERANCE * float(expected.abs().max())


def trace(blocks: Tensor) -> Tensor:
    return torch.einsum("iaja->ij", blocks) / blocks.shape[1]


def check(model, x1, x2, readout=None, **options) -> EmpiricalNTK:
    kernel = EmpiricalNTK(model, readout=readout, **options)
    j1, j2 = (jacobian_by_loop(model, x, None, readout) for x in (x1, x2))
    gram, cross = torch.einsum("iap,jbp->iajb", j1, j1), torch.einsum("iap,jbp->iajb", j1, j2)
    assert_equal(kernel.blocks(x1), gram)
    assert_equal(kernel.blocks(x1, x2), cross)
    assert_equal(kernel(x1), trace(gram))
    assert_equal(kernel(x1, x2), trace(cross))
    assert_equal(kernel.diagonal(x1), trace(gram).diagonal())
    assert_equal(kernel.features(x1), j1.flatten(0, 1))
    assert torch.equal(kernel(x1), kernel(x1).T)
    return kernel


@pytest.mark.parametrize("case", EMPIRICAL, ids=repr)
def test_every_case_equals_the_loop(case: Case):
    model = case.model()
    check(model, case.points(4), case.points(3, seed=2))


@pytest.mark.parametrize("case", [EMPIRICAL[0], EMPIRICAL[2], EMPIRICAL[7]], ids=repr)
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_every_budget_gives_the_same_kernel(case: Case, share: float):
    model, x1, x2 = case.model(), case.points(5), case.points(3, seed=2)
    plenty = EmpiricalNTK(model)
    for form in ("blocks", "trace"):
        call = (lambda k, *x: k.blocks(*x)) if form == "blocks" else (lambda k, *x: k(*x))
        for points in ((x1,), (x1[:4], x2)):
            with pytest.raises(MemoryBudgetError) as error:
                EmpiricalNTK(model, memory=1).plan(*points, form=form)
            least = int(str(error.value).split("memory=")[1].split(" ")[0])
            most = plenty.plan(*points, form=form).bytes * 4 // 3
            tight = EmpiricalNTK(model, memory=least + int(share * max(most - least, 0)))
            assert_equal(call(tight, *points), call(plenty, *points))
    with pytest.raises(MemoryBudgetError):
        EmpiricalNTK(model, memory=least - 20).plan(x1, x2)


def test_looped_rows_in_tiny_tiles():
    model = nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 3))
    x = vectors(6)
    with pytest.raises(MemoryBudgetError) as error:
        EmpiricalNTK(model, memory=1).blocks(x)
    least = int(str(error.value).split("memory=")[1].split(" ")[0])
    kernel = EmpiricalNTK(model, memory=least + 400)
    assert max(group.samples for group in kernel.plan(x, form="blocks").groups) < 6
    assert_equal(kernel.blocks(x), ntk_by_loop(model, x, x))


def test_rates():
    model, x = mlp(3, 5, 2), vectors(4)
    init = Initialization(2.0, 0.1, "ntk")
    rates = init.rates(model)
    expected = ntk_by_loop(model, x, x, rates)
    assert_equal(EmpiricalNTK(model, rates=rates).blocks(x), expected)
    assert_equal(EmpiricalNTK(model, rates=init).blocks(x), expected)
    kernel = EmpiricalNTK(model, rates=EmpiricalNTK(model, rates=init))
    assert_equal(kernel.blocks(x), expected)
    assert kernel.origin.kind == "empirical ntk"
    assert kernel.origin.rates == rates
    assert EmpiricalNTK(model).origin.standard
    j = EmpiricalNTK(model, rates=rates).features(x)
    c = torch.cat([torch.full((p.numel(),), rates[name]) for name, p in model.named_parameters()])
    assert_equal(((j * c) @ j.T).reshape(4, 2, 4, 2), expected)


def test_some_parameters_and_frozen_ones():
    model, x = mlp(3, 5, 2), vectors(4)
    whole = EmpiricalNTK(model)(x)
    first, second = EmpiricalNTK(model, parameters="0"), EmpiricalNTK(model, parameters=["2.weight", "2.bias"])
    assert_equal(first(x) + second(x), whole)
    assert first.features(x).shape == (8, 20)
    assert first.origin.rates == {"0.weight": 1.0, "0.bias": 1.0, "2.weight": 0.0, "2.bias": 0.0}
    model[2].requires_grad_(False)
    assert_equal(EmpiricalNTK(model)(x), first(x))
    with pytest.raises(RatesError, match="no parameter that learns"):
        EmpiricalNTK(model, parameters="2")
    with pytest.raises(RatesError, match=r"`1`.*names no parameter"):
        EmpiricalNTK(model, parameters="1")


def test_a_tied_parameter_goes_by_any_of_its_names():
    model, x = EMPIRICAL[7].model(), EMPIRICAL[7].points(3)
    assert_equal(EmpiricalNTK(model, parameters="again.weight")(x), EmpiricalNTK(model, parameters="first.weight")(x))


def test_the_kernel_is_of_a_snapshot():
    model, x = mlp(3, 5, 2), vectors(4)
    kernel = EmpiricalNTK(model)
    before = kernel(x)
    with torch.no_grad():
        model[0].weight += 1.0
    model[2].requires_grad_(False)
    changed = model(x).detach()
    assert_equal(kernel(x), before)
    assert torch.equal(model(x), changed)
    assert float((EmpiricalNTK(model)(x) - before).abs().max()) > 1e-3
    assert all(p.grad is None for p in model.parameters())


def test_dtypes():
    model = mlp(3, 8, 2).float()
    x = vectors(5)
    kernel = EmpiricalNTK(model)
    assert kernel(x).dtype == torch.float32
    exact = EmpiricalNTK(mlp(3, 8, 2).double())
    exact.snapshot.values.update({n: v.double() for n, v in kernel.snapshot.values.items()})
    assert torch.allclose(kernel.blocks(x).double(), exact.blocks(x.float().double()), rtol=1e-4, atol=1e-5)


class Centred(nn.Module):
    """Centres its outputs over the batch."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        out = self.linear(x)
        return out - out.mean(0)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        return self.linear(x) + 0.1 * torch.randn(len(x), 2)


class BatchSoftmax(nn.Module):
    def forward(self, x):
        return x * torch.softmax(x, 0)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_batch_mixing_is_found(n):
    with pytest.raises(NotExactError, match="mixes the points of a batch"):
        EmpiricalNTK(Centred())(vectors(n))
    model = nn.Sequential(nn.Linear(3, 4), BatchSoftmax(), nn.Linear(4, 2))
    with pytest.raises(NotExactError, match=r"`1` \(BatchSoftmax\)"):
        EmpiricalNTK(model).blocks(vectors(n))


def test_batch_mixing_behind_a_last_layer_of_zeros_is_found():
    model = nn.Sequential(nn.Linear(3, 4), BatchSoftmax(), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)
    with pytest.raises(NotExactError, match=r"`2\.weight`.*depends on the other points"):
        EmpiricalNTK(model)(vectors(4))


def test_batch_mixing_of_some_points_only_is_found():
    class Sorts(nn.Module):
        def forward(self, x):
            return x if len(x) < 3 else x.sort(0).values

    with pytest.raises(NotExactError, match=r"`0` \(Sorts\)"):
        EmpiricalNTK(nn.Sequential(Sorts(), nn.Linear(3, 2)))(vectors(5))


def test_noise_is_found():
    with pytest.raises(NotExactError, match="other outputs each time"):
        EmpiricalNTK(Noisy())(vectors(3))


def test_training_mode_is_found():
    with pytest.raises(NotExactError, match=r"`1` \(nn\.BatchNorm1d\)"):
        EmpiricalNTK(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)))


def test_what_is_not_finite_raises_by_name():
    model = mlp(3, 4, 2)
    with torch.no_grad():
        model[2].bias[0] = float("inf")
    with pytest.raises(ModelError, match=r"`2` \(Linear\).*NaN or infinite"):
        EmpiricalNTK(model)(vectors(3))

    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return (self.weight * x).abs().sqrt()

    with pytest.raises(ModelError, match=r"`weight`.*gradients that are NaN"):
        EmpiricalNTK(Root())(vectors(3))


def test_other_errors():
    model = mlp(3, 4, 2)
    with pytest.raises(DataError, match="NaN"):
        EmpiricalNTK(model)(torch.full((2, 3), float("nan")))
    with pytest.raises(ModelError, match="does not run"):
        EmpiricalNTK(model)(torch.randn(2, 7))
    with pytest.raises(MemoryBudgetError):
        EmpiricalNTK(model, memory=0)
    with pytest.raises(RatesError, match="has no rate"):
        EmpiricalNTK(model, rates={"0.weight": 1.0})
    with pytest.raises(ModelError, match="different dtypes"):
        EmpiricalNTK(nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).float()))
    with pytest.raises(ModelError, match=r"nn\.Module"):
        EmpiricalNTK(lambda x: x)


class Reentrant(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x):
        h = self.linear(x)
        return torch.utils.checkpoint.checkpoint(torch.tanh, h, use_reentrant=True)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_what_autograd_cannot_differentiate():
    with pytest.raises(ModelError, match="use_reentrant"):
        EmpiricalNTK(Reentrant())(vectors(3))


def test_attention_keeps_its_fast_path_outside():
    model = nn.Linear(3, 2)
    before = torch.backends.mha.get_fastpath_enabled()
    EmpiricalNTK(model)(vectors(2))
    assert torch.backends.mha.get_fastpath_enabled() == before


def test_a_pytree_of_other_shapes():
    nested = {"x": vectors(3), "ids": torch.randint(5, (3,))}
    kernel = EmpiricalNTK(named("inputs as a dictionary").model())
    assert_equal(kernel(nested)[:2], kernel(tree_map(lambda leaf: leaf[:2], nested), nested))


def test_per_output_kernels_are_the_diagonal_blocks():
    model, x1, x2 = mlp(3, 5, 4), vectors(6), vectors(3)
    kernel = EmpiricalNTK(model)
    for points in ((x1,), (x1, x2)):
        blocks = ntk_by_loop(model, x1, points[-1])
        assert_equal(kernel.per_output(*points), torch.einsum("iaja->aij", blocks))
        assert_equal(kernel.per_output(*points).mean(0), kernel(*points))


def test_layers_sum_to_the_kernel():
    model, x1, x2 = mlp(3, 5, 4, 2), vectors(6), vectors(3)
    init = Initialization(2.0, 0.3, "ntk")
    kernel = EmpiricalNTK(model, rates=init)
    for points in ((x1,), (x1, x2)):
        layers = kernel.layers(*points)
        assert list(layers) == ["0", "2", "4"]
        assert_equal(sum(layers.values()), kernel(*points))
        assert_equal(layers["2"], EmpiricalNTK(model, rates=init, parameters="2")(*points))


def test_named_groups_of_parameters():
    model, x = mlp(3, 5, 4, 2), vectors(6)
    kernel = EmpiricalNTK(model)
    groups = kernel.layers(x, groups={"weights": ["0.weight", "2.weight"], "head": "4", "bias": "0.bias"})
    assert_equal(groups["head"], EmpiricalNTK(model, parameters="4")(x))
    assert_equal(groups["weights"], EmpiricalNTK(model, parameters=["0.weight", "2.weight"])(x))
    assert_equal(groups["bias"], EmpiricalNTK(model, parameters="0.bias")(x))
    with pytest.raises(RatesError, match="overlaps"):
        kernel.layers(x, groups={"a": "0", "b": "0.bias"})
    with pytest.raises(RatesError, match="names no parameter"):
        kernel.layers(x, groups={"a": "7"})


BARE = {"scale": torch.tensor(0.7), "matrix": torch.randn(3, 2), "unused": torch.randn(4)}


def test_a_bare_parameter_is_a_layer_by_its_name():
    model, x = Net(lambda m, x: torch.sin(m.scale * x) @ m.matrix, **BARE), vectors(4)
    layers = EmpiricalNTK(model).layers(x)
    assert list(layers) == ["scale", "matrix", "unused"]
    assert float(layers["unused"].abs().max()) == 0.0
    assert_equal(layers["scale"] + layers["matrix"], EmpiricalNTK(model)(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_low_precision_models_accumulate_in_more(dtype):
    model, x = mlp(8, 64, 64, 2), vectors(5).repeat(1, 3)[:, :8]
    low = mlp(8, 64, 64, 2).to(dtype)
    low.load_state_dict(model.state_dict())
    model.load_state_dict(low.state_dict())
    exact = EmpiricalNTK(model)(x)
    assert EmpiricalNTK(low)(x).dtype == dtype
    precise = EmpiricalNTK(low, accumulate=torch.float64)(x)
    assert precise.dtype == torch.float64
    eps = torch.finfo(dtype).eps
    assert float((precise - exact).abs().max()) < 8 * eps * float(exact.abs().max())
    assert float((EmpiricalNTK(low)(x).double() - precise).abs().max()) <= eps * float(precise.abs().max())
    with pytest.raises(ModelError, match="accumulate"):
        EmpiricalNTK(model, accumulate=torch.float16)


def test_forms_that_do_not_exist():
    with pytest.raises(DataError, match="form"):
        EmpiricalNTK(mlp(3, 2)).plan(vectors(2), form="all")
