"""The architectures that `.ci/run` accounts for each day."""

import datetime

import pytest

from experiments.architectures import daily
from experiments.architectures.registry import NAMES, SLOW

DAYS = [(datetime.date(2026, 1, 1) + datetime.timedelta(days=d)).isoformat() for d in range(200)]
SPENT = {"wall": 1.0, "cpu": 1.0}
GOOD = {"spent": SPENT, "residual": 1e-5, "error": ""}
BAD = {"spent": SPENT, "residual": None, "error": "UnbalancedLedgerError: by a lot"}


def test_each_day_has_two_and_all_but_the_slow_ones_have_their_day():
    assert set(SLOW) < set(NAMES)
    assert {len(set(daily.drawn(day))) for day in DAYS} == {2}
    assert {name for day in DAYS for name in daily.drawn(day)} == set(NAMES) - set(SLOW)
    assert daily.drawn(DAYS[0]) == daily.drawn(DAYS[0])


@pytest.mark.parametrize("answers, errors", [([GOOD, GOOD, GOOD], 0), ([GOOD, BAD, GOOD], 2)])
def test_what_does_not_balance_is_an_error(monkeypatch, capsys, answers, errors):
    monkeypatch.setattr(daily, "account_for", lambda name, *_: {"name": name, "answers": answers})
    assert daily.main() == errors
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 2 and told.err.count("by a lot") == errors
