"""The stored gallery: a record of every experiment, judged as its numbers say, on the page that these records make."""

import shutil
from pathlib import Path

import pytest

from priorscope.experiments import EXPERIMENTS
from priorscope.experiments.experiment import RELATIONS
from priorscope.report.gallery import Record, write_gallery

GALLERY = Path(__file__).parents[2] / "gallery"


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_experiment_is_there_as_a_full_run_left_it(name):
    record = Record.read(GALLERY / f"{name}.json")
    assert record.full
    assert record.command == f"priorscope experiment run {name} --full"
    assert "+" not in record.commit
    assert record.outcome is not None
    assert (GALLERY / f"{name}.svg").exists()
    for each in record.outcome["criteria"]:
        assert each["holds"] == RELATIONS[each["relation"]](float(each["value"]), float(each["threshold"]))


def test_the_page_is_what_the_records_make(tmp_path):
    for path in GALLERY.iterdir():
        if path.suffix in (".json", ".svg"):
            shutil.copy(path, tmp_path)
    write_gallery(tmp_path, list(EXPERIMENTS))
    assert (tmp_path / "README.md").read_text() == (GALLERY / "README.md").read_text()
