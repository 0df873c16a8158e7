"""Networks as people write them, unmodified, with their own forward: through the limit, explain, sampling, report."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import priorscope as ps
from priorscope.errors import NoRuleError
from tests.oracles import ntk_by_loop

INIT = ps.Initialization(2.0, 0.01)


class PreBlock(nn.Module):
    """He et al. 2016: norm, ReLU, convolution, twice; the shortcut is the block's own input."""

    def __init__(self, c):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1)
        self.norm2, self.conv2 = nn.BatchNorm2d(c), nn.Conv2d(c, c, 3, padding=1)

    def forward(self, x):
        h = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(h)))


class PreActivationResNet(nn.Module):
    def __init__(self, c=8, outputs=10):
        super().__init__()
        self.stem = nn.Conv2d(1, c, 3, padding=1)
        self.blocks = nn.Sequential(PreBlock(c), PreBlock(c))
        self.head = nn.Linear(c, outputs)

    def forward(self, x):
        return self.head(F.relu(self.blocks(self.stem(x))).mean((2, 3)))


class PostBlock(nn.Module):
    """He et al. 2015, as in torchvision: ReLU behind the sum; projection where the shape changes."""

    def __init__(self, a, b, stride=1):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b)
        self.conv2, self.bn2 = nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b)
        projection = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        self.downsample = projection if stride > 1 or a != b else None

    def forward(self, x):
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += identity
        return F.relu(out)


class PostActivationResNet(nn.Module):
    def __init__(self, c=8, outputs=10, widen=2):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, c, 3, padding=1, bias=False), nn.BatchNorm2d(c), nn.ReLU())
        self.layer1, self.layer2 = PostBlock(c, widen * c, widen), PostBlock(widen * c, 2 * widen * c, 2)
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(2 * widen * c, outputs)

    def forward(self, x):
        return self.fc(torch.flatten(self.pool(self.layer2(self.layer1(self.stem(x)))), 1))


class Pooled(nn.Module):
    """Convolutions and global pooling."""

    def __init__(self, c=8, outputs=10):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.ReLU(), nn.Conv2d(c, 2 * c, 3), nn.ReLU())
        self.fc = nn.Linear(2 * c, outputs)

    def forward(self, x):
        return self.fc(self.features(x).mean(dim=(2, 3)))


NETWORKS = {"pre-activation": PreActivationResNet, "post-activation": PostActivationResNet, "pooled": Pooled}


def drawn(model, seed=0):
    """Drawn in place; gains of normalisations stay 1, which `apply_` says."""
    lawless = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if not lawless:
        return INIT.apply_(model.eval(), seed)
    with pytest.warns(ps.PriorscopeWarning, match="no law"):
        return INIT.apply_(model.eval(), seed)


@pytest.mark.parametrize("name", NETWORKS)
def test_mean_kernels_of_drawn_networks(name):
    """Both widths' means are within a few standard errors of the limit, up to b/width; a law 30 % off is not."""
    x = torch.randn(2, 1, 4, 4)
    off, errors = {}, {}
    for c, draws in ((4, 60), (16, 60)):
        model = drawn(NETWORKS[name](c, 1))
        law = ps.infinite_width(model, INIT).ntk(x)
        kernels = torch.stack([ntk_by_loop(drawn(model, seed), x, x)[:, 0, :, 0] for seed in range(1, draws + 1)])
        errors[c] = float((kernels.std(0) / draws**0.5).norm() / law.norm())
        off[c] = float((kernels.mean(0) - law).norm() / law.norm())
    assert off[16] < 2.5 * errors[16] + off[4] / 4
    assert errors[16] < 0.2


@pytest.mark.parametrize("name", NETWORKS)
def test_explain_names_the_users_layers(name):
    limit = ps.infinite_width(drawn(NETWORKS[name]()), INIT)
    limit(torch.randn(2, 1, 8, 8))
    text = str(limit.explain())
    assert "nn.Conv2d" in text
    assert "mean" in text or "pooling" in text
    assert "nn.Linear" in text


def test_a_shortcut_behind_a_relu_is_integrated_or_sampled():
    """relu(conv(...) + x) with x = relu(...) itself: a function of two Gaussian values."""
    model = drawn(PostActivationResNet(4, 2, widen=1))
    x = torch.randn(2, 1, 4, 4)
    limit = ps.infinite_width(model, INIT)
    assert bool(torch.isfinite(limit(x).ntk).all())
    assert "function of 2 Gaussian values" in str(limit.explain())


def test_a_network_with_max_pooling_is_refused_or_sampled():
    model = drawn(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)))
    x = torch.randn(2, 1, 4, 4)
    with pytest.raises(NoRuleError, match=r"`2` is nn.MaxPool2d.*AvgPool2d"):
        ps.infinite_width(model, INIT)(x)
    pair = ps.infinite_width(model, INIT, fallback="monte-carlo", samples=4)
    with pytest.warns(ps.PriorscopeWarning, match=r"MaxPool2d.*estimated from 4 networks"):
        ntk = pair.ntk(x)
    assert (pair.ntk.standard_errors(x) > 0).all()
    assert torch.linalg.eigvalsh(ntk).min() > 0


def test_a_report_on_pictures(tmp_path):
    digits = ps.data.named("digits")
    x = F.avg_pool2d(digits.x, 2)[:24].float() / 16
    result = ps.report(drawn(Pooled(8)).float(), x, digits.y[:24], init=INIT, out=tmp_path)
    assert len(result.answers) == 5
    text = (tmp_path / "index.html").read_text()
    assert "infinite width, derived from the module" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_report_on_digits(name, tmp_path):
    split = ps.data.split(ps.data.named("digits"), 30, 15)
    result = ps.report(drawn(NETWORKS[name]()).float(), split, init=INIT, out=tmp_path)
    assert "No infinite-width limit" not in (tmp_path / "index.html").read_text()
    assert len(result.answers) == 5
