"""The table of the experiment: a row for each architecture, also for those that failed."""

import pytest

from experiments.architectures.__main__ import Settings, columns, errors_of, in_own_process, row

FOUND = {
    "name": "Some",
    "parameters": 7,
    "layers": 2,
    "training": 1.5,
    "verifying": 0.5,
    "answers": [
        {"seconds": 1.0, "residual": 2e-5, "error": ""},
        {"seconds": 2.0, "residual": None, "error": "UnbalancedLedgerError: by a lot"},
        {"seconds": 3.0, "residual": 3e-5, "error": ""},
    ],
}
FAILED = {"name": "Other", "error": "ended with 1: out of luck"}


def test_a_question_that_failed_is_a_dash_and_an_error():
    assert row(FOUND) == ("Some", 7, 2, 1.5, 0.5, 1.0, "2.0e-05", 2.0, "–", 3.0, "3.0e-05")
    assert errors_of(FOUND) == [("Some", "by layer", "UnbalancedLedgerError: by a lot")]


def test_an_architecture_that_failed_is_a_row():
    assert len(row(FAILED)) == len(row(FOUND)) == len(columns())
    assert errors_of(FAILED) == [("Other", "all", "ended with 1: out of luck")]


@pytest.mark.slow
def test_an_error_in_the_process_is_its_result(tmp_path):
    found = in_own_process("nothing", Settings(), tmp_path / "run")
    assert found == {"name": "nothing", "error": "ended with 1: KeyError: 'nothing'"}


@pytest.mark.slow
def test_a_process_that_takes_too_long_is_given_up(tmp_path):
    assert "not done" in in_own_process("MobileNet", Settings(limit=1), tmp_path / "run")["error"]
