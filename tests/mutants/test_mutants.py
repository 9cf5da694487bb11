"""Faults that are made on purpose are found by the tests (mutants.py)."""

import pytest

from tests.mutants.mutants import MUTANTS, OWN, REVIEWED
from tests.mutants.run import ROOT, SURVIVORS, survivors


def test_every_mutant_has_its_place() -> None:
    assert len({m.name.split()[0] for m in MUTANTS}) == len(MUTANTS)
    for mutant in MUTANTS:
        assert (ROOT / mutant.file).read_text().count(mutant.old) == 1, mutant
        assert mutant.old != mutant.new
        assert all((ROOT / t).is_file() for t in mutant.tests if t.endswith(".py")), mutant


@pytest.mark.slow
def test_reviewed_mutants_are_found() -> None:
    assert survivors(REVIEWED) == []


@pytest.mark.slow
def test_few_mutants_survive() -> None:
    assert len(survivors(OWN)) <= SURVIVORS
