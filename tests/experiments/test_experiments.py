"""Experiments say what they measured; criteria decide the exit status; each claim's exact part holds in every run."""

import math

import pytest

from priorscope.errors import DataError
from priorscope.experiments import EXPERIMENTS, Config, Criterion, Outcome, find


def test_statistical_criteria_count_only_in_full():
    exact, statistical = Criterion("a", 1.0, "<=", 2.0), Criterion("b", 0.5, ">=", 0.8, exact=False)
    outcome = Outcome((exact, statistical), {})
    assert outcome.passed(full=False)
    assert not outcome.passed(full=True)
    assert "FAIL" in str(statistical)
    assert not Criterion("nan", math.nan, "<=", 1.0).holds
    assert not Outcome((Criterion("c", 3.0, "<=", 2.0),), {}).passed(full=False)


def test_unknown_names_list_the_known_ones():
    with pytest.raises(DataError, match="autokernel, coin, eigenvectors, husky, puzzle"):
        find("nothing")


def test_eigenvectors():
    experiment = find("eigenvectors")
    outcome = experiment.run(Config())
    assert outcome.passed(full=True), [str(c) for c in outcome.criteria if not c.holds]
    assert len(experiment.draw(outcome).axes) == 6
    outcome.to_dict()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_every_claim_in_full(name):
    outcome = find(name).run(Config(full=True))
    assert outcome.passed(full=True), [str(c) for c in outcome.criteria if not c.holds]
