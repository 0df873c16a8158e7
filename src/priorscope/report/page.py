"""Answers -> files: one self-contained page that opens offline, figures as SVG and PNG, every number as JSON.

Each file is written beside its place and moved there when it is whole, the page last; an interrupted run leaves no
broken file.
"""

import base64
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from ..results import plain
from ..version import __version__
from .answer import Answer

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("priorscope.report", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write_page(
    out: Path, title: str, facts: Mapping[str, str], notes: Sequence[str], answers: Sequence[Answer]
) -> Path:
    """Writes figures, `report.json` and `index.html` into the folder; returns the page's path."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    sections = []
    for answer in answers:
        pictures = []
        for picture in answer.pictures:
            svg = save_figure(picture.figure, out / "figures" / picture.name)
            pictures.append({"svg": svg, "caption": picture.caption, "name": picture.name})
        sections.append({"question": answer.question, "sentences": answer.sentences, "pictures": pictures})
    numbers = {
        "priorscope": __version__,
        "title": title,
        "facts": dict(facts),
        "notes": list(notes),
        "answers": {
            answer.pictures[0].name: {"question": answer.question, "sentences": answer.sentences, **answer.numbers}
            for answer in answers
        },
    }
    write(out / "report.json", json.dumps(plain(numbers), indent=1))
    html = TEMPLATES.get_template("report.html").render(
        title=title, facts=facts, notes=notes, sections=sections, version=__version__
    )
    return write(out / "index.html", html)


def save_figure(figure: Figure, stem: Path) -> str:
    """Writes stem.svg and stem.png, closes the figure, and returns the SVG as text that can stand inside a page."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "path", "svg.hashsalt": stem.name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=160)
    plt.close(figure)
    svg = buffer.getvalue()
    write(stem.with_suffix(".svg"), svg)
    write(stem.with_suffix(".png"), png.getvalue())
    return inline(svg, stem.name)


def inline(svg: str, name: str) -> str:
    """An SVG that shares a page with others: without its XML head, its ids made its own."""
    body = svg[svg.index("<svg") :]
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", body)


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def write(path: Path, content: str | bytes) -> Path:
    """Writes a whole file or none."""
    data = content.encode() if isinstance(content, str) else content
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return path
