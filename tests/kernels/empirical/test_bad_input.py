"""What has no exact kernel raises: the class, and a message with the place, the cause and the remedy."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from priorscope.errors import (
    DataError,
    MemoryBudgetError,
    ModelError,
    NotExactError,
    PriorscopeError,
    RatesError,
)
from priorscope.kernels.empirical import EmpiricalNTK
from tests.kernels.empirical.awkward.autograd import mlp
from tests.kernels.empirical.awkward.case import Net, floats
from tests.oracles import jacobian_by_loop

VECTORS = floats(3)


@dataclass(frozen=True)
class Bad:
    """match: a pattern of `place: cause. Remedy.` options: keywords of EmpiricalNTK."""

    name: str
    error: type[PriorscopeError]
    match: str
    make: Callable[[], nn.Module]
    points: Callable[[int], Any] = VECTORS
    options: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name


class Middle(nn.Module):
    """A function without parameters, as a module of its own, so that an error can name it."""

    def __init__(self, function: Callable[[Tensor], Any]):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def around(function: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    """The function between two layers: `1` is what an error must name."""
    return lambda: nn.Sequential(nn.Linear(3, 4), Middle(function), nn.Linear(4, 2))


def zeros_after(function: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    """The same behind a last layer of zeros, where the outputs show nothing."""

    def make() -> nn.Module:
        model = around(function)()
        nn.init.zeros_(model[2].weight)
        return model

    return make


def returns(function: Callable[[Tensor], Any]) -> Callable[[], nn.Module]:
    return lambda: Net(lambda m, x: function(m.a(x)), a=nn.Linear(3, 2))


READOUT = "readout="
OUTPUTS = [
    Bad("tuple", ModelError, f"the model's output: is a tuple.*{READOUT}", returns(lambda h: (h, h))),
    Bad("dictionary", ModelError, f"the model's output: is a dict.*{READOUT}", returns(lambda h: {"a": h})),
    Bad("nothing", ModelError, f"the model's output: is a NoneType.*{READOUT}", returns(lambda h: None)),
    Bad("a number", ModelError, f"the model's output: has shape .*for 2 points.*{READOUT}", returns(lambda h: h.sum())),
    Bad(
        "points last",
        ModelError,
        rf"the model's output: has shape \(3, 2\) for 2 points.*{READOUT}",
        lambda: Net(lambda m, x: m.a(x).T, a=nn.Linear(3, 3)),
    ),
    Bad("classes", ModelError, f"the model's output: has dtype torch.int64.*{READOUT}", returns(lambda h: h.argmax(1))),
    Bad(
        "complex numbers",
        ModelError,
        f"the model's output: has dtype torch.complex128.*{READOUT}",
        returns(torch.fft.fft),
    ),
    Bad(
        "a read-out of a tuple",
        ModelError,
        "the model's output: is a tuple",
        returns(lambda h: (h, h)),
        options={"readout": lambda out: out},
    ),
    Bad(
        "a read-out that fails",
        ModelError,
        r"the readout: fails .*IndexError",
        returns(lambda h: (h, h)),
        options={"readout": lambda out: out[5]},
    ),
    Bad(
        "NaN",
        ModelError,
        r"`1` \(Middle\): gives outputs that are NaN or infinite\. Look",
        around(lambda h: (h - 10).log()),
    ),
    Bad(
        "infinities",
        ModelError,
        r"`1` \(Middle\): gives outputs that are NaN or infinite\. Look",
        around(lambda h: 1 / (h - h)),
    ),
    Bad(
        "outputs that grow with the batch",
        ModelError,
        "per point in a batch.*readout=",
        lambda: Net(lambda m, x: m.a(x) @ m.a(x).T, a=nn.Linear(3, 2)),
    ),
]


def training(model: nn.Module, path: str) -> nn.Module:
    """In eval mode all but one."""
    model.eval().get_submodule(path).train()
    return model


MODES = [
    Bad(
        "dropout",
        NotExactError,
        r"`1` \(nn\.Dropout\): is in training mode: .*random\. Call model\.eval",
        lambda: mlp(nn.Dropout(0.5)).train(),
    ),
    Bad(
        "dropout inside",
        NotExactError,
        r"`1\.0` \(nn\.Dropout\): is in training mode",
        lambda: training(mlp(nn.Sequential(nn.Dropout(0.5))), "1.0"),
    ),
    Bad(
        "batch norm",
        NotExactError,
        r"`1` \(nn\.BatchNorm1d\): is in training mode: .*batch\. Call model\.eval",
        lambda: mlp(nn.BatchNorm1d(4)).train(),
    ),
    Bad(
        "batch norm without statistics",
        NotExactError,
        r"`1` \(nn\.BatchNorm1d\): keeps no running",
        lambda: mlp(nn.BatchNorm1d(4, track_running_stats=False)).eval(),
    ),
    Bad(
        "random leaky relu",
        NotExactError,
        r"`1` \(nn\.RReLU\): is in training mode",
        lambda: training(mlp(nn.RReLU()), "1"),
    ),
    Bad(
        "attention's own dropout",
        NotExactError,
        r"`a` \(nn\.MultiheadAttention\)",
        lambda: Net(lambda m, x: m.a(x, x, x)[0], a=nn.MultiheadAttention(4, 2, dropout=0.5, batch_first=True)),
        floats(2, 4),
    ),
    Bad(
        "functional dropout",
        NotExactError,
        r"`1` \(Middle\): .*each time it is called.*eval",
        around(lambda h: functional.dropout(h, 0.5, training=True)),
    ),
    Bad(
        "functional batch norm",
        ModelError,
        "does not run on inputs of shape .*more than 1 value per channel",
        around(lambda h: functional.batch_norm(h, None, None, training=True)),
    ),
]

EACH_TIME = r"`1` \(Middle\): gives other outputs each time it is called.*Remove the noise"
NOISE = [
    Bad("normal noise", NotExactError, EACH_TIME, around(lambda h: h + 0.1 * torch.randn_like(h))),
    Bad("uniform noise", NotExactError, EACH_TIME, around(lambda h: h * torch.rand(h.shape))),
    Bad("a random mask", NotExactError, EACH_TIME, around(lambda h: h * torch.bernoulli(torch.full_like(h, 0.5)))),
    Bad("gumbel softmax", NotExactError, EACH_TIME, around(lambda h: functional.gumbel_softmax(h))),
    Bad(
        "noise in the model itself",
        NotExactError,
        "the model: gives other outputs each time",
        returns(lambda h: h + torch.randn_like(h)),
    ),
]


class Counts(nn.Module):
    """State that every call changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x * self.calls


NOISE += [
    Bad(
        "a counter in a buffer",
        NotExactError,
        r"`1` \(Counts\): gives other outputs each time",
        lambda: nn.Sequential(nn.Linear(3, 4), Counts(), nn.Linear(4, 2)),
    )
]

MIXES: list[tuple[str, Callable[[Tensor], Tensor]]] = [
    ("centred over the batch", lambda h: h - h.mean(0)),
    ("scaled over the batch", lambda h: h / h.norm()),
    ("softmax over the batch", lambda h: h * torch.softmax(h, 0)),
    ("sorted over the batch", lambda h: h.sort(0).values),
    ("flipped over the batch", lambda h: h.flip(0)),
    ("shifted over the batch", lambda h: h + h.roll(1, 0)),
    ("summed over the batch", lambda h: h + h.cumsum(0)),
    ("batch norm by hand", lambda h: (h - h.mean(0)) / (h.var(0, unbiased=False) + 0.1).sqrt()),
    ("attention over the batch", lambda h: torch.softmax(h @ h.T, 1) @ h),
]
IN_A_BATCH = r"`1` \(Middle\): gives a point other outputs in a batch than alone: it mixes the points.*Use a layer"
MIXING = [Bad(name, NotExactError, IN_A_BATCH, around(function)) for name, function in MIXES]
MIXING += [
    Bad(
        f"{name}, behind zeros",
        NotExactError,
        r"`2\.weight`: its gradient at a point depends on the other points",
        zeros_after(function),
    )
    for name, function in MIXES
    if name not in ("flipped over the batch", "sorted over the batch")
]


def detours(h: Tensor) -> Tensor:
    while h.norm() > 0.1:
        h = h / 2
    return h


def looks(h: Tensor) -> Tensor:
    if h.sum() > 0:
        return h.tanh()
    return h


def scaled_by_number(h: Tensor) -> Tensor:
    return h * float(h.detach().mean())


def through_item(h: Tensor) -> Tensor:
    return h + h.detach().abs().max().item()


def through_numpy(h: Tensor) -> Tensor:
    return h + torch.from_numpy(h.detach().numpy().copy()).tanh()


def through_list(h: Tensor) -> Tensor:
    return h * torch.tensor(h.detach().tolist())


def by_index(h: Tensor) -> Tensor:
    return torch.stack([row * (1 + int(row.argmax())) for row in h])


def each_row(h: Tensor) -> Tensor:
    return torch.stack([row.tanh() if row.sum().item() > 0 else row for row in h])


def same_values(h: Tensor) -> Tensor:
    return h if torch.allclose(h, h.abs()) else h.tanh()


def lists_rows(h: Tensor) -> Tensor:
    return h if (h > 0).any() else h.tanh()


READS = [
    Bad(
        f"read: {function.__name__}",
        NotExactError,
        r"`1` \(Middle\).*, test_bad_input\.py:\d+: reads a value that depends on data in Python.*torch\.where",
        around(function),
    )
    for function in (
        detours,
        looks,
        scaled_by_number,
        through_item,
        through_numpy,
        through_list,
        by_index,
        each_row,
        same_values,
        lists_rows,
    )
]
READS += [
    Bad(
        "read: floating inputs",
        NotExactError,
        "reads a value that depends on data",
        lambda: Net(lambda m, x: m.a(x) if x.sum() > 0 else m.b(x), a=nn.Linear(3, 2), b=nn.Linear(3, 2)),
    ),
    Bad(
        "read: in a read-out",
        NotExactError,
        "reads a value that depends on data",
        lambda: nn.Linear(3, 2),
        options={"readout": lambda out: out * out.detach().sum().item()},
    ),
]


def all_frozen() -> nn.Module:
    return mlp().requires_grad_(False)


RATES = [
    Bad("all frozen", RatesError, r"the empirical ntk: has no parameter that learns\. Set requires_grad", all_frozen),
    Bad("no parameters", RatesError, "has no parameter that learns", lambda: nn.Sequential(nn.Tanh(), nn.Flatten())),
    Bad("missing rates", RatesError, r"`0\.bias`.*has no rate", mlp, options={"rates": {"0.weight": 1.0}}),
    Bad(
        "an unknown rate",
        RatesError,
        r"`nose`",
        mlp,
        options={"rates": {"0.weight": 1.0, "0.bias": 1.0, "2.weight": 1.0, "2.bias": 1.0, "nose": 1.0}},
    ),
    Bad(
        "a negative rate",
        RatesError,
        r"`0\.bias`",
        mlp,
        options={"rates": {"0.weight": 1.0, "0.bias": -1.0, "2.weight": 1.0, "2.bias": 1.0}},
    ),
    Bad(
        "an unknown parameter",
        RatesError,
        r"parameters=`0\.gain`: names no parameter or module\. Names are like `0\.weight`",
        mlp,
        options={"parameters": "0.gain"},
    ),
    Bad(
        "a module without parameters",
        RatesError,
        r"parameters=`1`: names no parameter",
        mlp,
        options={"parameters": ["0", "1"]},
    ),
    Bad("a memory of nothing", MemoryBudgetError, r"memory: is 0\. Give a positive", mlp, options={"memory": 0}),
    Bad(
        "a memory too small",
        MemoryBudgetError,
        r"the empirical ntk .*does not fit into 5 bytes.*Give memory=\d+ or more",
        mlp,
        options={"memory": 5},
    ),
]


def of_dtypes() -> nn.Module:
    model = mlp()
    model[2].float()
    return model


def on_devices() -> nn.Module:
    model = mlp()
    model[2].to("meta")
    return model


MODELS = [
    Bad(
        "two dtypes",
        ModelError,
        r"`0\.weight|`0\.bias.*float64.*and.*float32.*have different dtypes\. Call model\.",
        of_dtypes,
    ),
    Bad(
        "complex parameters",
        ModelError,
        r"`w`: has dtype torch\.complex128\. Use real parameters",
        lambda: Net(lambda m, x: (x * m.w).abs(), w=torch.randn(3, dtype=torch.complex128)),
    ),
    Bad(
        "no shape yet",
        ModelError,
        r"has no shape yet \(a lazy module\)\. Run the model once",
        lambda: nn.Sequential(nn.LazyLinear(2)),
    ),
    Bad(
        "no module",
        ModelError,
        r"model: is a builtin_function_or_method\. Give an nn\.Module",
        lambda: abs,
    ),
    Bad(
        "a wrong width",
        ModelError,
        r"does not run on .* of shape \(\d, 5\) .*Give inputs that model\(x\) takes",
        mlp,
        floats(5),
    ),
    Bad(
        "too few arguments",
        ModelError,
        r"does not run .*missing.*a tuple for several",
        lambda: Net(lambda m, x, z: m.a(x + z), a=nn.Linear(3, 2)),
    ),
    Bad("an unknown keyword", ModelError, "does not run .*unexpected keyword", mlp, lambda n: {"x": torch.randn(n, 3)}),
    Bad(
        "ids that are not in the table",
        ModelError,
        "does not run .*IndexError",
        lambda: nn.Embedding(3, 2),
        lambda n: torch.full((n,), 7),
    ),
]

INPUTS = [
    Bad(
        "NaN in the inputs",
        DataError,
        r"x1: has 1 entries that are NaN or infinite\. Drop or fill",
        mlp,
        lambda n: torch.tensor([[float("nan"), 0, 0], [1, 2, 3.0]]),
    ),
    Bad(
        "infinite inputs", DataError, "x1: has 6 entries that are NaN", mlp, lambda n: torch.full((2, 3), float("inf"))
    ),
    Bad("no points", DataError, "x1: is empty", mlp, lambda n: torch.empty(0, 3)),
    Bad("no axis", DataError, "x1: is empty.*first axis", mlp, lambda n: torch.tensor(1.0)),
    Bad("no tensor", DataError, "x1: holds no tensor", mlp, lambda n: "points"),
    Bad(
        "inputs of two lengths",
        DataError,
        "x1: its tensors have different first axes",
        mlp,
        lambda n: (torch.randn(2, 3), torch.randn(3, 3)),
    ),
]


BAD = OUTPUTS + MODES + NOISE + MIXING + READS + RATES + MODELS + INPUTS


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("case", BAD, ids=repr)
def test_raises_by_name(case: Bad):
    torch.manual_seed(0)
    model = case.make()
    x = case.points(3 if case not in OUTPUTS else 2)
    with pytest.raises(case.error, match=case.match) as error:
        EmpiricalNTK(model, **case.options)(x)
    assert error.type in (case.error, NotExactError)
    assert error.value.place
    assert error.value.cause
    assert error.value.remedy


def test_points_on_two_devices_are_named():
    with pytest.raises(PriorscopeError, match=r"meta.*cpu|cpu.*meta"):
        EmpiricalNTK(on_devices())(torch.randn(2, 3))


def test_inputs_on_another_device_than_the_model():
    with pytest.raises(PriorscopeError, match="meta"):
        EmpiricalNTK(mlp())(torch.randn(2, 3, device="meta"))


def test_points_of_another_kind():
    kernel = EmpiricalNTK(mlp())
    with pytest.raises(DataError, match=r"x2: its points have shapes"):
        kernel(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(DataError, match=r"x2: has the dtype torch\.float32"):
        kernel(torch.randn(2, 3), torch.randn(2, 3).float())
    with pytest.raises(DataError, match=r"x2: has 2 entries that are NaN"):
        kernel(torch.randn(2, 3), torch.tensor([[float("nan"), float("nan"), 0]]))


def test_the_least_budget_is_enough():
    x = torch.randn(4, 3)
    with pytest.raises(MemoryBudgetError) as error:
        EmpiricalNTK(mlp(), memory=5)(x)
    least = int(str(error.value).split("memory=")[1].split(" ")[0])
    model = mlp()
    torch.testing.assert_close(EmpiricalNTK(model, memory=least)(x), EmpiricalNTK(model)(x))


def test_batch_mixing_of_larger_batches_only():
    model = around(lambda h: h if len(h) < 3 else h - h.mean(0))()
    with pytest.raises(NotExactError, match=r"`1` \(Middle\).*mixes the points"):
        EmpiricalNTK(model)(torch.randn(6, 3))


def test_mixing_hidden_from_the_first_points():
    """Points that mix only where an integer input says so: neither the first nor the last."""
    model = Net(lambda m, x, i: m.a(x) - (m.a(x) * i[:, None]).sum(0) * i[:, None], a=nn.Linear(3, 2))
    i = torch.tensor([0, 1, 1, 0])
    with pytest.raises(NotExactError):
        EmpiricalNTK(model)((torch.randn(4, 3), i))


def exact_or_named(model: nn.Module, x: Any) -> None:
    """Exact, or an error by name; anything else fails."""
    j = jacobian_by_loop(model, x)
    try:
        blocks = EmpiricalNTK(model).blocks(x)
    except PriorscopeError:
        return
    expected = torch.einsum("iap,jbp->iajb", j, j)
    assert float((blocks - expected).abs().max()) <= 1e-10 * float(expected.abs().max())


def test_a_gradient_that_is_not_linear():
    def clipped(m, x: Tensor) -> Tensor:
        h = m.a(x).tanh()
        if h.requires_grad:
            h.register_hook(lambda grad: grad.clamp(-0.1, 0.1))
        return m.b(h)

    exact_or_named(Net(clipped, a=nn.Linear(3, 4), b=nn.Linear(4, 2)), torch.randn(3, 3))


def test_an_embedding_that_counts_its_ids():
    model = nn.Sequential(nn.Embedding(4, 3, scale_grad_by_freq=True), nn.Tanh(), nn.Flatten(), nn.Linear(9, 2))
    exact_or_named(model, torch.randint(4, (3, 3)))


def test_an_embedding_that_changes_its_weight():
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=0.5), nn.Tanh(), nn.Flatten(), nn.Linear(9, 2))
    x = torch.randint(4, (3, 3))
    before = model[0].weight.clone()
    with pytest.raises(NotExactError, match=r"`0` \(nn\.Embedding\): has max_norm"):
        EmpiricalNTK(model)(x)
    assert torch.equal(model[0].weight, before)


def test_a_loop_over_an_integer_input_is_no_read_of_data():
    def rule(m, x: Tensor, steps: Tensor) -> Tensor:
        for _ in range(int(steps[0])):
            x = m.a(x).tanh()
        return x

    x = (torch.randn(3, 3), torch.full((3,), 2))
    model = Net(rule, a=nn.Linear(3, 3))
    j = jacobian_by_loop(model, x)
    torch.testing.assert_close(EmpiricalNTK(model).blocks(x), torch.einsum("iap,jbp->iajb", j, j))


def test_the_model_is_as_it_was_after_an_error():
    model = around(lambda h: h - h.mean(0))()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NotExactError):
        EmpiricalNTK(model)(torch.randn(3, 3))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
