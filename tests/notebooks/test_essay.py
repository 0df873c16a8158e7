"""The essay's notebook: run in full (its cells assert what matters), its figures captioned, its last cell alone."""

import ast
import builtins
from pathlib import Path

import nbformat
import pytest

from priorscope.report import essay

PATH = Path(__file__).parents[2] / "notebooks" / "essay.ipynb"
SECTIONS = 13


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(PATH, as_version=4)


def test_it_runs_and_every_figure_has_its_own_heading_and_caption():
    notebook = essay.execute(PATH)
    shown = list(essay.figures(notebook))
    drawing = [cell for cell in notebook.cells if "figure(" in cell.source and not cell.source.startswith("import")]
    assert len(shown) >= len(drawing) >= SECTIONS
    assert len({figure.heading for figure in shown}) == len(shown)
    assert all(len(figure.caption) > 20 and "$" not in figure.caption for figure in shown)


def test_it_is_stored_without_outputs_for_any_python(stored):
    assert stored.metadata.kernelspec.name == "python3"
    code = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_it_has_every_section_in_order(stored):
    titles = [cell.source.splitlines()[0] for cell in stored.cells if cell.cell_type == "markdown"]
    numbers = [int(title.split()[1].rstrip(".")) for title in titles if title.startswith("# ") and "." in title]
    assert numbers == list(range(1, SECTIONS + 1))


def test_the_last_cell_stands_alone(stored):
    tree = ast.parse(stored.cells[-1].source)
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    known = {node.id for node in names if isinstance(node.ctx, ast.Store)} | set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        if isinstance(node, ast.FunctionDef):
            known |= {node.name, *(argument.arg for argument in node.args.args)}
    assert {node.id for node in names if isinstance(node.ctx, ast.Load)} <= known
