"""Pictures of learnability: lines for predictions, dots for measurements."""

import matplotlib.pyplot as plt
import pytest
import torch

from priorscope import plot
from priorscope.errors import DataError
from priorscope.generalization.learnability import learnability


@pytest.fixture
def result():
    return learnability(torch.tensor([1.0, 0.3, 0.1]), torch.tensor([0.5, 0.3, 0.2]), [1, 2, 4], ridge=0.1)


def test_learning_curve(result):
    ax = plot.learning_curve({"a": result, "b": result}, measured=([1, 4], [0.5, 0.2], [0.1, 0.1]))
    assert ax.lines[0].get_ydata().tolist() == result.error.tolist()
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "measured (± standard error)"]
    one = learnability(torch.ones(2), torch.ones(2), 1, ridge=0.1)
    with pytest.raises(DataError, match="has one n"):
        plot.learning_curve(one)
    plt.close("all")


def test_modes(result):
    ax = plot.learnability(result, modes=[0, 2])
    assert ax.lines[1].get_ydata().tolist() == result.learnability[:, 2].tolist()
    assert ax.get_legend().get_texts()[1].get_text() == "mode 3"
    one = plot.learnability(learnability(torch.tensor([1.0, 0.5]), torch.ones(2), 1, ridge=0.1))
    assert len(one.lines[0].get_xdata()) == 2
    plt.close("all")
