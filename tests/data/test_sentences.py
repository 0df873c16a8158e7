"""Sentences from files, one a line, and from the descriptions of scikit-learn's data sets."""

import pytest

from priorscope.data.sentences import descriptions, read_sentences
from priorscope.errors import DataError


def test_lines_are_sentences_and_several_files_are_groups(tmp_path):
    (tmp_path / "sea.txt").write_text("\ufeffThe sea is deep.\n\n  Ships sail.  \n", encoding="utf-8")
    (tmp_path / "land.txt").write_text("Überall ist Wald.\r\n", encoding="utf-8")
    found = read_sentences([tmp_path / "sea.txt", tmp_path / "land.txt"])
    assert found.items == ("The sea is deep.", "Ships sail.", "Überall ist Wald.")
    assert found.names == ("sea.txt, line 1", "sea.txt, line 3", "land.txt, line 1")
    assert found.groups == ("sea", "sea", "land")
    assert read_sentences([tmp_path / "sea.txt"]).groups is None


def test_files_that_cannot_be_used_say_why(tmp_path):
    for name, content in (("empty.txt", b" \n"), ("one.txt", b"Alone.\n"), ("binary.txt", b"\xff\xfe\x00caf\xe9")):
        (tmp_path / name).write_bytes(content)
    for name, message in [
        ("empty.txt", "empty.txt: is empty"),
        ("one.txt", "has 1 of the sentences"),
        ("binary.txt", "is not text in UTF-8"),
        ("nowhere.txt", "does not exist"),
    ]:
        with pytest.raises(DataError, match=message):
            read_sentences([tmp_path / name])


def test_descriptions_are_whole_sentences_without_markup():
    pytest.importorskip("sklearn")
    found = descriptions()
    assert len(found) >= 50
    assert len(set(found.items)) == len(found)
    assert min(found.groups.count(group) for group in found.groups) >= 2
    for sentence in found.items:
        assert sentence[0].isupper()
        assert sentence[-1] in ".!?"
        assert not any(mark in sentence for mark in ("`", "*", "::", "[", "\n"))
