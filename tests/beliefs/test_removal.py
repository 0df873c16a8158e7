"""Removal in closed form is fitting again without the points."""

import pytest
import torch
from torch import nn

import priorscope as ps
from priorscope.beliefs import LeftOut, leave_out
from priorscope.errors import DataError, SingularKernelError
from priorscope.kernels import RBF, Linear
from tests.beliefs.kernels import Features

KERNEL = ps.kernels.ArcCosine(1) + 0.1 * RBF(1.0)
GROUPS = ["a", "b", "a", "c", "b", "b", "a", "d", "c"]


def refit(kernel, x, y, kept, at, ridge):
    """Kernel regression on the points that are kept, by a dense solve."""
    some = kernel(x[kept]) + ridge * torch.eye(int(kept.sum()))
    return kernel(at, x[kept]) @ torch.linalg.solve(some, y[kept])


@pytest.mark.parametrize("ridge", [0.0, 0.3])
@pytest.mark.parametrize("groups", [None, GROUPS])
def test_leaving_out_equals_fitting_again(groups, ridge):
    x, x_new, y = torch.randn(9, 3), torch.randn(4, 3), torch.randn(9, 2)
    left = leave_out(KERNEL.on(x), y, groups=groups, x_new=x_new, ridge=ridge)
    names = list(map(str, range(9))) if groups is None else groups
    whole = refit(KERNEL, x, y, torch.ones(9, dtype=torch.bool), x_new, ridge)
    for g, name in enumerate(left.names):
        kept = torch.tensor([one != name for one in names])
        assert torch.equal(left.sets[g], ~kept)
        without = refit(KERNEL, x, y, kept, x[~kept], ridge)
        assert torch.allclose(left.prediction[~kept], without, atol=1e-8, rtol=1e-8)
        assert torch.allclose(left.residual[~kept], y[~kept] - without, atol=1e-8, rtol=1e-8)
        moved = refit(KERNEL, x, y, kept, x_new, ridge) - whole
        assert float(moved.abs().max()) > 1e-3
        assert torch.allclose(left.change[:, g], moved, atol=1e-8, rtol=1e-8)
    assert left.mean_squared_error == pytest.approx(float(left.residual.square().mean()))


def test_sets_may_overlap_and_leave_out_half_of_the_points():
    x, x_new, y = torch.randn(12, 3), torch.randn(5, 3), torch.randn(12)
    sets = torch.rand(20, 12) < 0.5
    left = leave_out(KERNEL, x, y, groups=sets, x_new=x_new, ridge=0.1)
    full = ps.influence(KERNEL, x, x_new, 0.1) @ y
    expected = torch.stack([refit(KERNEL, x, y, ~s, x_new, 0.1) for s in sets], 1)
    assert torch.allclose(full[:, None] + left.change, expected, atol=1e-8)
    assert left.residual is None
    with pytest.raises(DataError, match="no partition"):
        _ = left.mean_squared_error


def test_without_any_point_the_start_is_left():
    x, y = torch.randn(5, 3), torch.randn(5)
    model = nn.Linear(3, 1)
    left = leave_out(KERNEL, x, y, groups=["all"] * 5, x_new=x, start=model)
    start = model(x)[:, 0].detach()
    assert torch.allclose(left.prediction, start)
    assert torch.allclose(left.change[:, 0], start - y)


@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_from_a_start_it_is_the_trajectory_without_the_points(ridge):
    x, x_new, y = torch.randn(7, 3), torch.randn(4, 3), torch.randn(7)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    kept = torch.arange(7) % 3 != 0
    groups = ["out" if not k else "in" for k in kept]
    left = leave_out(KERNEL, x, y, groups=groups, x_new=x_new, ridge=ridge, start=model)
    with torch.no_grad():
        f0, f1 = model(x)[:, 0], model(x_new)[:, 0]
    whole = f1 + ps.influence(KERNEL, x, x_new, ridge) @ (y - f0)
    without = f1 + refit(KERNEL, x, y - f0, kept, x_new, ridge)
    assert torch.allclose(whole + left.change[:, left.names.index("out")], without, atol=1e-8)


def test_all_coupled_outputs_of_a_point_are_left_out_together():
    kernel, x, x_new, y = Features(3, 2, 60), torch.randn(6, 3), torch.randn(4, 3), torch.randn(6, 2)
    left = leave_out(kernel, x, y, x_new=x_new)
    assert left.outputs == "coupled"
    whole = ps.trajectory(kernel, x, y)(x_new)
    for i in range(6):
        kept = torch.arange(6) != i
        path = ps.trajectory(kernel, x[kept], y[kept])
        assert torch.allclose(left.prediction[i], path(x[[i]])[0], atol=1e-8)
        assert torch.allclose(left.change[:, i], path(x_new) - whole, atol=1e-8)


def test_classes_and_dtypes():
    x, y = torch.randn(8, 3, dtype=torch.float32), torch.arange(8) % 3
    left = leave_out(RBF(), x, y, groups=y)
    assert left.names == ("0", "1", "2")
    assert left.prediction.shape == (8, 3)
    single = leave_out(RBF(), x, x[:, 0])
    assert single.prediction.dtype == torch.float32
    assert torch.allclose(single.prediction + single.residual, x[:, 0], atol=1e-6)


def test_a_singular_kernel_is_named_and_a_ridge_mends_it():
    x, y = torch.randn(6, 2), torch.randn(6)
    with pytest.raises(SingularKernelError, match="rank 2 of 6 on x, and ridge=0 leaves it singular"):
        leave_out(Linear(), x, y)
    with pytest.raises(SingularKernelError, match="ridge=1e-20"):
        leave_out(Linear(), x, y, ridge=1e-20)
    kept = torch.arange(6) != 2
    expected = refit(Linear(), x, y, kept, x[[2]], 0.1)
    assert torch.allclose(leave_out(Linear(), x, y, ridge=0.1).prediction[[2]], expected, atol=1e-8)


def test_what_does_not_fit_raises():
    x, y = torch.randn(4, 2), torch.randn(4)
    for options, message in [
        ({"ridge": -1.0}, "ridge: is -1"),
        ({"ridge": float("nan")}, "ridge: is nan"),
        ({"groups": ["a", "b"]}, "2 names for 4"),
        ({"groups": "abcd"}, "'abcd' for 4"),
        ({"groups": torch.zeros(2, 4, dtype=torch.bool)}, "set 0 leaves out no point"),
        ({"groups": torch.ones(4, dtype=torch.bool)}, r"shape \(4,\) for 4"),
        ({"start": nn.Linear(2, 3)}, "3 outputs, y asks for 1"),
    ]:
        with pytest.raises(DataError, match=message):
            leave_out(RBF(), x, y, **options)


def test_it_is_saved(tmp_path):
    x, y = torch.randn(4, 2), torch.randn(4)
    left = leave_out(RBF(), x, y, x_new=x)
    again = LeftOut.load(left.save(tmp_path / "left.npz"))
    assert torch.equal(again.change, left.change)
    assert again.to_dict() == left.to_dict()
    assert "residual" in left._repr_html_()
