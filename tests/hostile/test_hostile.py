"""Some hundred changed runs of all cheap kinds, each day the same. `python -m tests.hostile` tries as many as wanted."""

from collections import Counter

import pytest

from tests.docs.pages import ROOT
from tests.hostile.authors_word import AUTHORS_WORD
from tests.hostile.mutations import CHANGES, mutant
from tests.hostile.probe import AUTHORS, GOOD, REFUSED, TOLD, Probe
from tests.hostile.runs import plain

pytestmark = pytest.mark.slow

MUTANTS = 500


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    run_dir = tmp_path_factory.mktemp("hostile") / "run"
    plain(run_dir)
    return Probe(run_dir)


def test_changed_runs_are_refused_or_answer_as_before(probe: Probe):
    found: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    bad = []
    for seed in range(MUTANTS):
        made = mutant(probe.files, seed, CHANGES)
        outcome = probe.outcome(made)
        found[outcome.name] += 1
        kinds[made.kind] += 1
        if outcome.name not in GOOD:
            bad.append(f"{seed}, {made.kind}, {made.place}: {outcome.name}: {outcome.message}")
    assert not bad, "\n".join(bad)
    # The mutants are what they are meant to be: most are refused, and some change what only the author knows.
    assert found[REFUSED] > MUTANTS / 2 and found[TOLD] > 0 and found[AUTHORS] > 0
    assert kinds.keys() == {change.__name__ for change in CHANGES}


def test_the_page_names_what_only_the_author_can_answer_for():
    page = (ROOT / "docs/how-to/strangers.md").read_text()
    for word in AUTHORS_WORD:
        assert word.what in page, word.what
