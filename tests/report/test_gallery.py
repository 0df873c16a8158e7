"""The gallery shows each experiment as it ended; a failure is shown as one."""

import shutil
import subprocess
from dataclasses import replace

import pytest

from priorscope.errors import DataError
from priorscope.report.gallery import Record, write_gallery

HOLDS = {"name": "a law", "written": "1", "relation": "<=", "limit": "2", "holds": True, "exact": True}
OPEN = {**HOLDS, "name": "a rate", "holds": False, "exact": False}
BROKEN = {**HOLDS, "name": "an identity", "holds": False}


def record(name="circle", criteria=(HOLDS,), full=False, error=""):
    outcome = None if error else {"criteria": list(criteria), "numbers": {"x": [1.0]}, "notes": ["a note"]}
    return Record(
        name, "a claim", "Somebody 2020", "priorscope experiment run circle", "abc123", full, 3.2, outcome, error
    )


def test_statistical_criteria_count_in_full_only():
    assert record().state == "reported"
    assert record(full=True).state == "passed"
    assert record(criteria=(HOLDS, OPEN)).state == "reported"
    assert record(criteria=(HOLDS, OPEN), full=True).state == "failed"
    assert record(criteria=(BROKEN,)).state == "failed"
    assert record(error="DataError: no").state == "failed"


def test_a_record_is_read_as_it_was_written(tmp_path):
    for each in (record(), record(error="DataError: no")):
        assert Record.read(each.write(tmp_path)) == each
    (tmp_path / "other.json").write_text('{"name": 1}')
    with pytest.raises(DataError, match=r"other\.json: is not the record"):
        Record.read(tmp_path / "other.json")


def test_the_page_shows_failures_as_failures(tmp_path):
    with pytest.raises(DataError, match="holds no record"):
        write_gallery(tmp_path, ["circle"])
    record("circle", (HOLDS, OPEN), full=True).write(tmp_path)
    record("parity", full=True).write(tmp_path)
    replace(record("coin"), outcome=None, error="DataError: <the cause>").write(tmp_path)
    page = write_gallery(tmp_path, ["parity", "circle", "coin", "risk"]).read_text()
    assert "1 passed in full, 0 reported by a short run, 2 failed; not run: risk" in page
    assert page.index('id="parity"') < page.index('id="circle"') < page.index('id="coin"')
    assert "&lt;the cause&gt;" in page
    assert "FAILS" in page
    told = (tmp_path / "README.md").read_text()
    assert "1 passed in full, 0 reported by a short run, 2 failed; not run: risk" in told
    assert "| [circle](#circle) | a claim | failed | 1 of 2 criteria hold |" in told
    assert "| a rate | 1 | <= 2 | **FAILS** |" in told
    assert "It ended in an error: DataError: <the cause>" in told


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_the_page_opens_in_a_browser(tmp_path):
    record("circle", (HOLDS, OPEN)).write(tmp_path)
    page = write_gallery(tmp_path, ["circle"])
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{page}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert 'id="circle"' in done.stdout
    assert "does not hold; counts in full only" in done.stdout
