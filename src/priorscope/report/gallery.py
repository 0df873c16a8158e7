"""All experiments on one page: each claim, its figure, its criteria; what failed is shown as failed.

An experiment's record is one JSON file beside its figure, which says the command and the commit that made it. The page
is made of the records that lie in a folder, so it can be made again without running anything; beside it lies the same
as README.md, for where a repository is read.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import DataError
from ..results import plain
from ..version import __version__
from .page import TEMPLATES, inline, write

TITLE = "The experiments"
State = Literal["passed", "reported", "failed"]
MANY = 40
"""Criteria beyond which a section shows them only when asked."""
FIELDS = ("name", "claim", "source", "command", "commit", "full", "seconds", "outcome", "error")
WORDS: dict[State, str] = {
    "passed": "passed, in full",
    "reported": "reported: a short run, whose exact criteria hold and whose statistical ones do not count",
    "failed": "FAILED",
}


@dataclass(frozen=True)
class Record:
    """What one run of an experiment left.

    name, claim, source: the experiment's. command, commit: what made it. full: whether statistical criteria count.
    seconds: how long it took. outcome: the experiment's `Outcome` as plain data; None where it ended in an error.
    error: that error in one line, else "".
    """

    name: str
    claim: str
    source: str
    command: str
    commit: str
    full: bool
    seconds: float
    outcome: dict[str, Any] | None
    error: str = ""

    @property
    def state(self) -> State:
        """Statistical criteria count in a full run only."""
        if self.outcome is None:
            return "failed"
        counting = [each for each in self.outcome["criteria"] if each["exact"] or self.full]
        if not all(each["holds"] for each in counting):
            return "failed"
        return "passed" if self.full else "reported"

    def write(self, folder: Path) -> Path:
        """Writes NAME.json; what lay there is replaced whole."""
        fields = {name: getattr(self, name) for name in FIELDS}
        return write(folder / f"{self.name}.json", json.dumps(plain(fields), separators=(",", ":")))

    @classmethod
    def read(cls, path: Path) -> "Record":
        """A record from its file.

        Raises:
            DataError: for a file that is no record.
        """
        try:
            fields = json.loads(path.read_text())
            return cls(**{name: fields[name] for name in FIELDS})
        except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
            remedy = "Run the experiment again, or remove the file"
            raise DataError(str(path), "is not the record of an experiment", remedy) from error


def write_gallery(folder: Path, names: list[str]) -> Path:
    """Writes index.html and README.md of the records in the folder, in the order of the names; returns the former.

    Raises:
        DataError: where there is no record.
    """
    found = [Record.read(folder / f"{name}.json") for name in names if (folder / f"{name}.json").exists()]
    if not found:
        raise DataError(str(folder), "holds no record of an experiment", "priorscope experiment run all --out ...")
    sections = [
        {
            "record": record,
            "words": WORDS[record.state],
            "criteria": [] if record.outcome is None else record.outcome["criteria"],
            "notes": [] if record.outcome is None else record.outcome["notes"],
            "held": _held(record),
            "svg": _figure(folder / f"{record.name}.svg", record),
        }
        for record in found
    ]
    missing = [name for name in names if name not in {record.name for record in found}]
    count = {state: sum(record.state == state for record in found) for state in WORDS}
    told = {"MANY": MANY, "sections": sections, "missing": missing, "count": count, "version": __version__}
    write(folder / "README.md", TEMPLATES.get_template("gallery.md").render(title=TITLE, **told))
    return write(folder / "index.html", TEMPLATES.get_template("gallery.html").render(title=TITLE, **told))


def _held(record: Record) -> str:
    if record.outcome is None:
        return "an error"
    holds = [each["holds"] for each in record.outcome["criteria"]]
    return f"{sum(holds)} of {len(holds)} criteria hold"


def _figure(path: Path, record: Record) -> str:
    return inline(path.read_text(), record.name) if record.outcome is not None and path.exists() else ""
