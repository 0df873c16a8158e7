# %% [markdown]
# # Fitting the variances of an initialization
#
# The NNGP is a Gaussian process, so that data have a marginal likelihood under it, and that is differentiable in
# σ_w² and σ_b². Here a small convolutional network reads handwritten digits; its variances start badly and are fitted
# by gradient ascent. No network is trained, and none is even drawn: its weights live on torch's meta device.

# %%
import torch
from torch import Tensor, nn

import priorscope as ps

torch.set_default_dtype(torch.float64)


def network() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(
            *(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(64 * 64, 1)),
        )


def data(train: int, test: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Digits 8 × 8; the label is +1 for 3 and −1 for 8."""
    digits = ps.data.named("digits")
    chosen = (digits.y == 3) | (digits.y == 8)
    x, y = digits.x[chosen] / 16, (digits.y[chosen] == 3) * 2.0 - 1
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    return x[:train], y[:train], x[train : train + test], y[train : train + test]


# %%
def fit(x: Tensor, y: Tensor, steps: int, rate: float = 0.1) -> tuple[ps.GaussianProcess, list[float]]:
    """Gradient ascent on the log marginal likelihood in log σ_w², log σ_b² and log σ² of the noise, by Adam."""
    model = network()
    logs = torch.tensor([-1.0, -3.0, -1.0], requires_grad=True)
    optimizer = torch.optim.Adam([logs], rate)
    history = []
    for _ in range(steps + 1):
        weight, bias, noise = logs.exp()
        kernel = ps.infinite_width(model, ps.Initialization(weight, bias)).nngp
        likelihood = ps.GaussianProcess(kernel, noise).log_marginal_likelihood(x, y)
        history.append(float(likelihood.detach()))
        optimizer.zero_grad()
        (-likelihood).backward()
        optimizer.step()
    weight, bias, noise = logs.detach().exp().tolist()
    kernel = ps.infinite_width(model, ps.Initialization(weight, bias)).nngp
    return ps.GaussianProcess(kernel, noise), history


# %%
def main(train: int = 60, test: int = 100, steps: int = 40) -> dict[str, float]:
    x, y, x_test, y_test = data(train, test)
    process, history = fit(x, y, steps)
    right = process.condition(x, y)(x_test).mean.sign() == y_test
    return {"before": history[0], "after": history[-1], "accuracy": float(right.double().mean())}


if __name__ == "__main__":
    print(main())
