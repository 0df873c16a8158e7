"""nn.MultiheadAttention and nn.TransformerEncoder: closed form at one position, sampled scores, sampled networks."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import priorscope as ps
from priorscope import Initialization, infinite_width
from priorscope.errors import NoRuleError, PriorscopeWarning
from tests.kernels.infinite.layers import Written
from tests.oracles import ntk_by_loop
from tests.statistics import BootstrappedMean, TwoWidths

INIT = Initialization(1.5, 0.1, parameterization="ntk")
W, B = 1.5, 0.1
CAUSAL = torch.ones(3, 3, dtype=torch.bool).triu(1)
DECAY = -0.7 * (torch.arange(3.0)[:, None] - torch.arange(3.0)).abs().double()


def attention(read, embed: int = 32, heads: int = 16, init: Initialization = INIT, seed: int = 0, **options):
    """c(read(attention(a(x)))), drawn."""

    def forward(m, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.c(read(m.h(h, h, h, **options)[0]))

    layer = nn.MultiheadAttention(embed, heads, batch_first=True)
    return init.apply_(Written(forward, a=nn.Linear(3, embed), h=layer, c=nn.Linear(embed, 1)), seed).eval()


def mean(h: Tensor) -> Tensor:
    return h.mean(1)


def first(h: Tensor) -> Tensor:
    return h[:, 0]


def points(positions: int = 3, count: int = 3, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, positions, 3, generator=generator, dtype=torch.float64)


def stated(limit) -> float:
    return max(step.error for step in limit.explain().steps)


def projected(k: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """A linear layer in the "ntk" parameterization."""
    return W * k + B, W * (t + k) + B


# Against closed forms and brute force


def test_one_position_is_two_linear_layers():
    """The softmax of one number is 1."""
    x = points(1, 4)
    found = infinite_width(attention(mean), INIT)(x)
    k = torch.einsum("ipc,jpc->ij", x, x) / 3
    t = torch.zeros_like(k)
    for _ in range(4):
        k, t = projected(k, t)
    torch.testing.assert_close(found.nngp, k, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.ntk, t, rtol=1e-12, atol=0)


def by_brute_force(x1: Tensor, x2: Tensor, mask: Tensor | None, draws: int = 60_000, learning: bool = True):
    """K and Θ of the heads' outputs between all positions of two points, with standard errors; slow and obvious."""
    size = len(x1)
    x = torch.cat([x1, x2])
    k = x @ x.T / 3
    k, t = projected(*projected(k, torch.zeros_like(k)))
    factor = torch.linalg.cholesky(k + 1e-12 * torch.eye(2 * size))
    z = torch.randn(draws, 2 * size, 2 * size, generator=torch.Generator().manual_seed(5))
    scores = torch.einsum("ab,sbc,dc->sad", factor, z, factor)
    pair = []
    for part in (scores[:, :size, :size], scores[:, size:, size:]):
        part = part if mask is None else part.masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else part + mask
        pair.append(part.softmax(-1))
    a, b = pair
    one, two = slice(None, size), slice(size, None)
    slopes = [torch.diag_embed(w) - w[..., :, None] * w[..., None, :] for w in pair]
    nngp = torch.einsum("spq,qt,sut->spu", a, k[one, two], b)
    ntk = torch.einsum("spq,qt,sut->spu", a, t[one, two], b)
    for p in range(size if learning else 0):
        for u in range(size):
            together = t[p, size + u] * k[one, two] + k[p, size + u] * t[one, two]
            inner = torch.einsum("qt,str,vr->sqv", k[one, two], slopes[1][:, u], together)
            ntk[:, p, u] += (slopes[0][:, p] * inner).sum((-2, -1))
    return [(values.mean(0), values.std(0) / draws**0.5) for values in (nngp, ntk)]


MASKS = {"none": None, "causal": CAUSAL, "of numbers": DECAY}


@pytest.mark.parametrize("name", MASKS)
def test_expectations_are_those_of_sampled_scores(name):
    mask, x = MASKS[name], points()
    limits = [infinite_width(attention(read, attn_mask=mask, need_weights=False), INIT) for read in (mean, first)]
    for i, j in ((0, 1), (0, 0)):
        found = by_brute_force(x[i], x[j], mask)
        for limit, taken in zip(limits, (torch.mean, lambda part: part[0, 0]), strict=True):
            (k, noise), (t, noise_of_t) = (tuple(map(taken, pair)) for pair in found)
            for _ in range(2):
                k, t = projected(k, t)
            ours = limit(x[i : i + 1], x[j : j + 1])
            error = stated(limit)
            assert 0 < error < 0.1
            largest = [float(kernel.diagonal(x).max()) for kernel in (limit.nngp, limit.ntk)]
            assert abs(float(ours.nngp) - k) < error * largest[0] + 5 * W**2 * noise
            assert abs(float(ours.ntk) - t) < error * largest[1] + 5 * W**2 * (noise_of_t + noise)
            assert error * largest[0] + 5 * W**2 * noise < 0.1 * largest[0]


def test_all_layouts_agree():
    """One pair of points has one value, whatever the points beside it; coinciding points are one."""
    x = points(3, 3)
    x = torch.cat([x, x[1:2], x[1:2] + 1e-7 * x[:1], torch.zeros_like(x[:1])])
    limit = infinite_width(attention(mean), INIT)
    for gram, kernel in zip(limit(x), (limit.nngp, limit.ntk), strict=True):
        assert torch.equal(gram, gram.T)
        assert bool(torch.isfinite(gram).all())
        # Roots of covariances of nearly full rank lose a few digits.
        torch.testing.assert_close(kernel(x[:3], x), gram[:3], rtol=1e-8, atol=0)
        torch.testing.assert_close(kernel(x, x[:3]), gram[:, :3], rtol=1e-8, atol=0)
        torch.testing.assert_close(kernel.diagonal(x), gram.diagonal(), rtol=1e-10, atol=0)
        assert float(gram[1, 3]) == pytest.approx(float(gram[1, 1]), rel=1e-12)
        assert abs(gram[1, 1] + gram[4, 4] - 2 * gram[1, 4]) < 1e-7 * gram[1, 1]
        assert float(torch.linalg.eigvalsh(gram)[0]) > -1e-6 * float(gram.max())


def test_float32_agrees_with_float64():
    x = points(4, 3)
    model = attention(mean)
    exact = infinite_width(model, INIT)(x)
    found = infinite_width(model, INIT)(x.float())
    for ours, other in zip(found, exact, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours.double(), other, rtol=1e-4, atol=0)


def test_without_biases_and_at_zero():
    init = Initialization(1.5, 0.0)

    def forward(m, x: Tensor) -> Tensor:
        h = m.a(x)
        return m.c(m.h(h, h, h)[0].mean(1))

    parts = {"a": nn.Linear(3, 32, bias=False), "c": nn.Linear(32, 1, bias=False)}
    model = Written(forward, h=nn.MultiheadAttention(32, 16, bias=False, batch_first=True), **parts).eval()
    x = points(4, 3)
    x[2] = 0
    found = infinite_width(init.apply_(model, 0), init)(x)
    assert bool(torch.isfinite(found.nngp).all() & torch.isfinite(found.ntk).all())
    assert float(found.nngp[2].abs().max()) < 1e-12
    assert float(torch.linalg.eigvalsh(found.nngp[:2, :2])[0]) > 0


# Against networks


@pytest.mark.parametrize("networks", [150, pytest.param(600, marks=pytest.mark.slow)])
def test_the_mean_kernel_of_networks_is_the_limit(networks):
    """16 heads of 2 and of 8 coordinates."""
    x, widths = points(3, 2), (2, 8)
    rows, columns = torch.triu_indices(2, 2)
    means = {}
    for width in widths:
        found = []
        for seed in range(networks):
            model = attention(mean, 16 * width, seed=seed)
            found.append(ntk_by_loop(model, x, x, INIT.rates(model))[:, 0, :, 0])
        means[width] = BootstrappedMean.of(torch.stack(found)[:, rows, columns], 4000, seed=0)
    law = infinite_width(attention(mean), INIT).ntk(x)[rows, columns]
    at = [means[width].statistic(law) for width in widths]
    criterion = TwoWidths("attention", *widths, *at, means[8].quantile)
    print(criterion)
    assert criterion.passes, criterion
    fixed = torch.stack([without_learning_scores(x[i], x[j]) for i, j in zip(rows, columns, strict=True)])
    assert criterion.refutes(means[8].statistic(fixed)), means[8].statistic(fixed)


def without_learning_scores(x1: Tensor, x2: Tensor) -> Tensor:
    """The NTK if queries and keys did not learn."""
    (k, _), (t, _) = by_brute_force(x1, x2, None, learning=False)
    k, t = k.mean(), t.mean()
    for _ in range(2):
        k, t = projected(k, t)
    return t


# Encoders


class Classifier(nn.Module):
    """Rows of a digit as tokens, or pairs of rows."""

    def __init__(self, layers: int = 1, embed: int = 32, heads: int = 16, outputs: int = 10, tokens=8, **options):
        super().__init__()
        self.tokens = tokens
        self.embed = nn.Linear(64 // tokens, embed)
        self.position = nn.Parameter(torch.randn(tokens, embed))
        settings = {"dim_feedforward": 2 * embed, "batch_first": True} | options
        layer = nn.TransformerEncoderLayer(embed, heads, **settings)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(embed, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(len(x), self.tokens, -1)
        return self.head(self.encoder(self.embed(x) + self.position).mean(1))


PLAIN = Initialization(1.5, 0.1)


def drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PriorscopeWarning)
        return PLAIN.apply_(model.eval(), seed)


ENCODERS = {
    "after, relu": {},
    "before, gelu": {"norm_first": True, "activation": "gelu"},
    "a function, no bias": {"activation": torch.tanh, "bias": False, "layer_norm_eps": 1e-3},
    "two layers": {"layers": 2},
}


def digits(count: int) -> Tensor:
    return ps.data.named("digits").x[:count].reshape(count, 8, 8).double() / 16


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_have_a_limit(name):
    x = digits(2)
    x = torch.cat([x, x[:1], torch.zeros_like(x[:1])])
    limit = infinite_width(drawn(Classifier(tokens=4, **ENCODERS[name])), PLAIN)
    found = limit(x)
    for kernel in found:
        assert bool(torch.isfinite(kernel).all())
        assert torch.equal(kernel, kernel.T)
        assert float(kernel[0, 2]) == pytest.approx(float(kernel[0, 0]), rel=1e-12)
        assert float(torch.linalg.eigvalsh(kernel[[0, 1, 3]][:, [0, 1, 3]])[0]) > 0
    text = str(limit.explain())
    assert "encoder.layers.0.self_attn nn.MultiheadAttention" in text
    assert "heads → ∞" in text
    assert "quadrature, error ≤" in text
    assert "encoder.layers.0.linear1 nn.Linear" in text


def test_an_encoder_is_its_parts():
    """The same layer, written out, has the same kernels."""
    model = drawn(Classifier())
    layer = model.encoder.layers[0]

    def forward(m, x: Tensor) -> Tensor:
        h = m.embed(x) + m.position
        h = m.norm1(h + m.attention(h, h, h)[0])
        h = m.norm2(h + m.second(torch.relu(m.first(h))))
        return m.head(h.mean(1))

    parts = {name: getattr(layer, name) for name in ("norm1", "norm2")}
    parts |= {"attention": layer.self_attn, "first": layer.linear1, "second": layer.linear2}
    written = Written(forward, embed=model.embed, position=model.position, head=model.head, **parts).eval()
    x = digits(2)
    for one, other in zip(infinite_width(model, PLAIN)(x), infinite_width(written, PLAIN)(x), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("norm_first", [False, True])
def test_mean_kernels_of_drawn_encoders(norm_first):
    x, off, errors = digits(2), {}, {}
    for embed in (64, 256):
        kernels = []
        for seed in range(60):
            model = drawn(Classifier(embed=embed, outputs=1, norm_first=norm_first), seed)
            kernels.append(ntk_by_loop(model, x, x)[:, 0, :, 0])
        law = infinite_width(model, PLAIN).ntk(x)
        found = torch.stack(kernels)
        errors[embed] = float((found.std(0) / 60**0.5).norm() / law.norm())
        off[embed] = float((found.mean(0) - law).norm() / law.norm())
    print(off, errors)
    assert off[256] < 2.5 * errors[256] + off[64] / 4
    assert errors[256] < 0.1


@pytest.mark.parametrize(("tokens", "count"), [(4, 10), pytest.param(8, 20, marks=pytest.mark.slow)])
def test_a_report_on_digits(tokens, count, tmp_path):
    data = ps.data.named("digits")
    model = drawn(Classifier(tokens=tokens)).float()
    result = ps.report(model, digits(count).float(), data.y[:count], init=PLAIN, out=tmp_path)
    assert len(result.answers) == 5
    assert "infinite width, derived from the module" in (tmp_path / "index.html").read_text()


def test_few_heads_are_warned_of_once():
    limit = infinite_width(attention(mean, 8, 2), INIT)
    with pytest.warns(PriorscopeWarning, match=r"`h` has 2 heads.*infinitely many"):
        limit(points(2, 2))
    limit(points(2, 2, seed=2))


# What is refused


def built(call, **options):
    settings = {"batch_first": True} | options
    parts = {"a": nn.Linear(3, 16), "b": nn.Linear(3, 16), "c": nn.Linear(16, 1)}
    return drawn(Written(call, h=nn.MultiheadAttention(16, 16, **settings), **parts))


def itself(m, x, **options):
    h = m.a(x)
    return m.c(m.h(h, h, h, **options)[0].mean(1))


def across(m, x):
    h, g = m.a(x), m.b(x)
    return m.c(m.h(h, g, g)[0].mean(1))


def padded(m, x):
    return itself(m, x, key_padding_mask=x[..., 0] > 1e9)


def weights(m, x):
    h = m.a(x)
    return m.h(h, h, h)[1]


def weighted(m, x):
    h = m.a(x)
    return m.c(m.h(h, h, h)[1] @ h)


REFUSED = {
    "across": (across, {}, "self-attention"),
    "positions first": (itself, {"batch_first": False}, "batch_first=True"),
    "other keys": (itself, {"kdim": 16, "vdim": 16}, None),
    "bias of keys": (itself, {"add_bias_kv": True}, "add_bias_kv"),
    "zeros": (itself, {"add_zero_attn": True}, "add_zero_attn"),
    "padding": (padded, {}, "key_padding_mask"),
    "weights": (weights, {}, "weights of attention"),
    "weights used": (weighted, {}, "weights of attention"),
    "masked out": (lambda m, x: itself(m, x, attn_mask=torch.ones(3, 3, dtype=torch.bool)), {}, "attend to nothing"),
    "a mask for each head": (lambda m, x: itself(m, x, attn_mask=torch.zeros(16 * len(x), 3, 3)), {}, "mask of shape"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_limit_is_named(name):
    call, options, cause = REFUSED[name]
    limit = infinite_width(built(call, **options).eval(), PLAIN)
    if cause is None:
        assert bool(torch.isfinite(limit(points()).ntk).all())
        return
    with pytest.raises(NoRuleError, match=cause) as raised:
        limit(points())
    assert raised.value.remedy


def test_dropout_and_gradients_are_refused():
    model = built(itself, dropout=0.1)
    with pytest.raises(NoRuleError, match=r"training mode.*eval"):
        infinite_width(model.train(), PLAIN)(points())
    limit = infinite_width(model.eval(), PLAIN)
    limit(points())
    with pytest.raises(NoRuleError, match="no derivative"):
        limit(points().requires_grad_())


def test_decoders_are_refused_by_name():
    layer = nn.TransformerDecoderLayer(16, 16, 16, batch_first=True)
    parts = {"a": nn.Linear(3, 16), "b": nn.Linear(3, 16), "c": nn.Linear(16, 1)}
    model = drawn(Written(lambda m, x: m.c(m.d(m.a(x), m.b(x)).mean(1)), d=layer, **parts))
    with pytest.raises(NoRuleError, match=r"`d`.*another sequence"):
        infinite_width(model, PLAIN)(points())


def test_an_encoder_of_the_data_themselves_is_refused():
    model = drawn(Written(lambda m, x: m.c(m.e(x).mean(1)), e=Classifier().encoder, c=nn.Linear(32, 1)))
    with pytest.raises(NoRuleError, match="adds the input itself"):
        infinite_width(model, PLAIN)(torch.randn(2, 4, 32))


def test_a_causal_encoder_and_a_mask_of_padding():
    """A constant mask goes through torch's own encoder to its layers; one that depends on the input is named."""

    def forward(m, x: Tensor) -> Tensor:
        return m.c(m.e(m.a(x), mask=CAUSAL, is_causal=True)[:, 0])

    def padded_forward(m, x: Tensor) -> Tensor:
        return m.c(m.e(m.a(x), src_key_padding_mask=x[..., 0] > 1e9)[:, 0])

    parts = {"a": nn.Linear(3, 32), "e": Classifier().encoder, "c": nn.Linear(32, 1)}
    x = points()
    y = x.clone()
    y[:, 1:] += 1
    limit = infinite_width(drawn(Written(forward, **parts)), PLAIN)
    # The first position sees itself alone.
    torch.testing.assert_close(limit.ntk(x), limit.ntk(y), rtol=1e-10, atol=0)
    with pytest.raises(NoRuleError, match="in `e`"):
        infinite_width(drawn(Written(padded_forward, **parts)), PLAIN)(x)
