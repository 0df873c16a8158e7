"""Sentences: the user's own files, one sentence a line, or real ones that describe scikit-learn's data sets."""

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from ..errors import DataError
from .collection import Collection, distinct_names

DESCRIPTIONS = {
    "breast cancer": "breast_cancer",
    "digits": "digits",
    "famous people": "lfw",
    "forest cover": "covtype",
    "housing": "california_housing",
    "intrusions": "kddcup99",
    "iris": "iris",
    "news": "rcv1",
    "newsgroups": "twenty_newsgroups",
    "portraits": "olivetti_faces",
    "species": "species_distributions",
    "wine": "wine_data",
}
"""Descriptions in the wheel of scikit-learn with at least three sentences."""
EACH = 10
WORDS = range(6, 41)
"""How many words a sentence of a description has: not a heading, not a table."""


def read_sentences(paths: Sequence[str | Path]) -> Collection:
    """The user's sentences: text files in UTF-8, one sentence a line; empty lines are left out.

    Of several files, each is a group.

    Raises:
        DataError: a file that does not exist, is empty or no text, or fewer than two sentences in all.
    """
    sentences, names, groups = [], [], []
    for path in map(Path, paths):
        if not path.is_file():
            raise DataError(str(path), "does not exist", "Give text files, one sentence a line")
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(str(path), f"is not text in UTF-8 ({error.reason})", "Save it as UTF-8") from error
        numbered = [(i + 1, line.strip()) for i, line in enumerate(lines) if line.strip()]
        if not numbered:
            raise DataError(str(path), "is empty", "Write one sentence a line")
        for number, sentence in numbered:
            sentences.append(sentence)
            names.append(f"{path.name}, line {number}")
            groups.append(path.with_suffix(""))
    return Collection(
        "sentences" if len(paths) != 1 else Path(paths[0]).name,
        "sentences",
        tuple(sentences),
        tuple(names),
        tuple(distinct_names(groups)) if len(paths) > 1 else None,
    )


def descriptions() -> Collection:
    """Sixty-four sentences from the descriptions of twelve data sets in scikit-learn's wheel, at most ten each.

    The group is the data set. Other releases of scikit-learn may have other sentences.

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        folder = resources.files("sklearn.datasets.descr")
    except ModuleNotFoundError as error:
        remedy = "pip install 'priorscope[examples]'"
        raise DataError("scikit-learn", "is not installed; it brings these sentences", remedy) from error
    sentences, names, groups = [], [], []
    for group, file in DESCRIPTIONS.items():
        found = _sentences((folder / f"{file}.rst").read_text(encoding="utf-8"))[:EACH]
        sentences += found
        names += [f"{group}, sentence {i + 1}" for i in range(len(found))]
        groups += [group] * len(found)
    return Collection(
        "descriptions of data sets",
        "sentences",
        tuple(sentences),
        tuple(names),
        tuple(groups),
        (f"the first sentences, at most {EACH}, of {WORDS.start} to {WORDS.stop - 1} words in each description",),
    )


def _sentences(text: str) -> list[str]:
    """The sentences of a reStructuredText page: prose and items of lists, without directives, fields, tables, code."""
    found: list[str] = []
    text = re.split(r"\n.*(?:References|Recommendations)", text)[0]
    for block in re.split(r"\n\s*\n|\n\s*- |\n\.\. [a-z]+:: \w+\n", text):
        lines = [line.strip() for line in block.splitlines()]
        if any(re.match(r"(\.\. |:[\w-]+:|>>>|[-=*+~^|]{3,}|\[\d)", line) or "::" in line for line in lines):
            continue
        prose = re.sub(r":\w+:`~?([^`<]*?)\s*(?:<[^`]*>)?`", r"\1", " ".join(lines))
        prose = re.sub(r"`([^`<]*?)\s*<[^`]*>`_+", r"\1", prose).replace("`", "").replace("*", "")
        prose = re.sub(r"\s*\[\d+\]_?", "", prose)
        for sentence in re.split(r"(?<=[a-z0-9)][.!?])\s+(?=[A-Z])", prose):
            whole = sentence[:1].isupper() and sentence[-1:] in ".!?" and "[" not in sentence and '"' not in sentence
            if whole and len(sentence.split()) in WORDS and sentence not in found:
                found.append(sentence)
    return found
