"""The table of the experiment: a row for each architecture, also for those that failed."""

import json
import subprocess

import pytest

from experiments.architectures import processes
from experiments.architectures.__main__ import columns, errors_of, row
from experiments.architectures.processes import account_for, kept_or_found

ANSWER = {"spent": {"wall": 3.2, "cpu": 4.0}, "residual": 3e-5, "error": ""}
FAILED = {"spent": {"wall": 2.0, "cpu": 1.6}, "residual": None, "error": "UnbalancedLedgerError: by a lot"}
FOUND = {
    "name": "Some",
    "steps": 6,
    "parameters": 7,
    "layers": 2,
    "training": {"wall": 10.4, "cpu": 12.0},
    "verifying": {"wall": 0.6, "cpu": 0.5},
    "answers": [ANSWER, FAILED, ANSWER],
    "commit": "0123456789abcdef",
    "is_clean": True,
}
BEGUN = FOUND | {"answers": [ANSWER], "error": "not done after 5 seconds"}
NOTHING = {"name": "Other", "answers": [], "error": "ended with 1: out of luck", "commit": "0123456789"}


def test_a_question_that_failed_is_a_dash_and_an_error():
    cells = ("10 (12)", "1 (0)", "3 (4)", "3.0e-05", "2 (2)", "–", "3 (4)", "3.0e-05")
    assert row(FOUND) == ("Some", 7, 2, *cells, "0123456")
    assert errors_of(FOUND) == [("Some", "by layer", "UnbalancedLedgerError: by a lot")]


def test_an_architecture_that_was_given_up_keeps_its_answers():
    assert row(BEGUN)[5:] == ("3 (4)", "3.0e-05", "–", "–", "–", "–", "0123456")
    assert errors_of(BEGUN) == [("Some", "by layer", "not done after 5 seconds")]


def test_an_architecture_that_failed_is_a_row():
    assert len(row(NOTHING)) == len(row(FOUND)) == len(columns())
    assert errors_of(NOTHING) == [("Other", "training", "ended with 1: out of luck")]


@pytest.mark.parametrize(
    "changes, is_kept",
    [
        ({"answers": [ANSWER] * 3}, True),
        ({"answers": [ANSWER] * 3, "steps": 2}, False),
        ({"answers": [ANSWER] * 3, "is_clean": False}, False),
        ({}, False),
        (BEGUN, False),
    ],
    ids=["whole", "other steps", "not committed", "an answer failed", "given up"],
)
def test_only_whole_rows_are_kept(tmp_path, monkeypatch, changes, is_kept):
    monkeypatch.setattr(processes, "account_for", lambda name, *_: {"name": name, "answers": []})
    kept_or_found("Some, small", 6, 9, tmp_path / "run", tmp_path / "kept")
    (path,) = (tmp_path / "kept").iterdir()
    assert path.name == "some-small.json" and json.loads(path.read_text()).keys() >= {"commit", "is_clean"}
    path.write_text(json.dumps(FOUND | changes))
    again = kept_or_found("Some, small", 6, 9, tmp_path / "run", tmp_path / "kept")
    assert (again == FOUND | changes) == is_kept


def test_what_a_process_printed_before_it_was_given_up_is_its_result(tmp_path, monkeypatch):
    def printing(call, *, stdout, timeout, **_):
        stdout.write(json.dumps({"name": "Some", "answers": []}) + "\n" + json.dumps(FOUND) + "\n")
        raise subprocess.TimeoutExpired(call, timeout)

    monkeypatch.setattr(subprocess, "run", printing)
    found = account_for("Some", 6, 5, tmp_path / "run")
    assert found == FOUND | {"error": "not done after 5 seconds"}


@pytest.mark.nightly
def test_an_error_in_the_process_is_its_result(tmp_path):
    found = account_for("nothing", 6, 600, tmp_path / "run")
    assert found["answers"] == [] and found["error"].startswith("ended with 1: ")
