"""float64, seeded, warnings are errors; jaxtyping's shapes are checked by beartype while the tests run."""

from jaxtyping import install_import_hook

import tests.typecheck  # noqa: F401  (the hook looks the checker up by name)

install_import_hook("priorscope", "tests.typecheck.check")

import matplotlib  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

matplotlib.use("agg")

import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def float64_and_seeded():
    """Every test runs in float64 from the same seed, and leaves torch as it was."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)
    plt.close("all")  # many figures open at once warn
