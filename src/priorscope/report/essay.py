"""The essay's notebook, executed, and its figures as a page."""

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..errors import DataError
from ..version import __version__
from .page import TEMPLATES, data_uri, write

CELL_SECONDS = 300


@dataclass(frozen=True)
class Shown:
    """A figure of the notebook, under the heading and the sentence that stand before it."""

    heading: str
    caption: str
    png: bytes


def check(path: Path) -> None:
    """Raises DataError where the notebook is not there, or what runs it is not installed."""
    if not path.is_file():
        raise DataError(str(path), "does not exist", "Give the path of essay.ipynb (notebooks/ of the repository)")
    try:
        import nbclient  # noqa: F401
        import nbformat  # noqa: F401
    except ImportError as error:
        raise DataError(
            "nbclient and nbformat", "are not installed; they run notebooks", "pip install 'priorscope[examples]'"
        ) from error


def execute(path: Path, progress: bool = False) -> Any:
    """The notebook with all its cells run, top to bottom, in a fresh kernel."""
    check(path)
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    with tqdm(total=cells, desc="essay", unit="cell", disable=not progress) as bar:
        quiet = ["--IPKernelApp.log_level=ERROR"]  # its word on unencrypted ports is about other machines' users
        client = NotebookClient(notebook, timeout=CELL_SECONDS, kernel_name="python3", extra_arguments=quiet)
        client.on_cell_executed = lambda **_: bar.update()
        client.execute(cwd=str(path.parent))
    return notebook


def figures(notebook: Any) -> Iterator[Shown]:
    """Every picture of an executed notebook, in order."""
    heading, caption = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = [line.strip() for line in cell.source.splitlines() if line.strip()]
            titles = [line.lstrip("# ") for line in lines if line.startswith("#")]
            heading = titles[-1] if titles else heading
            caption = " ".join(line for line in lines if not line.startswith("#"))
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield Shown(heading, caption, base64.b64decode(output["data"]["image/png"]))


def write_essay(notebook: Any, out: Path) -> Path:
    """Writes essay.html, self-contained, and the figures into the folder; returns the page's path."""
    import nbformat

    (out / "figures").mkdir(parents=True, exist_ok=True)
    write(out / "essay.ipynb", nbformat.writes(notebook))
    shown = list(figures(notebook))
    for i, figure in enumerate(shown):
        write(out / "figures" / f"essay-{i + 1:02d}.png", figure.png)
    pictures = [{"heading": f.heading, "caption": f.caption, "uri": data_uri(f.png)} for f in shown]
    html = TEMPLATES.get_template("essay.html").render(title="The essay, run", pictures=pictures, version=__version__)
    return write(out / "index.html", html)


def write_cover(out: Path, essay: Path, report: Path, cards: list[Shown]) -> Path:
    """Writes the page that links both, with a few of the essay's pictures."""
    html = TEMPLATES.get_template("cover.html").render(
        title="priorscope: what a network wants to learn, before it is trained",
        essay=essay.relative_to(out).as_posix(),
        report=report.relative_to(out).as_posix(),
        cards=[{"heading": card.heading, "uri": data_uri(card.png)} for card in cards],
        version=__version__,
    )
    return write(out / "index.html", html)
