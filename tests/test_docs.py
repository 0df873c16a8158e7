"""What the documents say is true: doctests, README's code, the table of names."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import priorscope as ps
from priorscope.kernels.infinite.registry import RULES

ROOT = Path(__file__).parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(ps.__path__, "priorscope.") if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_doctests(name):
    torch.set_default_dtype(torch.float32)
    module = importlib.import_module(name)
    kept = dict(RULES)
    try:
        assert doctest.testmod(module).failed == 0
    finally:
        # What doctests register is theirs alone.
        RULES.clear()
        RULES.update(kept)


def test_every_public_name_has_a_docstring():
    for name in ps.__all__:
        assert getattr(ps, name).__doc__ or isinstance(getattr(ps, name), str), name


def test_names_in_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    for name in set(re.findall(r"ps\.(\w+)", text)):
        assert hasattr(ps, name), name


def test_readme_code_is_the_last_cell_of_the_essay():
    import nbformat

    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    cells = nbformat.read(ROOT / "notebooks" / "essay.ipynb", as_version=4).cells
    last = [cell.source for cell in cells if cell.cell_type == "code"][-1]
    assert code is not None
    assert code[1].strip() == last.strip()


DOCUMENTS = ["empirical.md", "infinite.md", "hypotheses.md", "learnability.md", "similar.md", "trust.md"]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_code_of_the_documents_runs(document):
    names: dict[str, object] = {"__name__": document}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.S):
        exec(block, names)
