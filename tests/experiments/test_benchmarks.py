"""The benchmarks' harness works; the durations that it measures are not tested."""

import json
import math

import pytest
import typer

from experiments.benchmarks import timing
from experiments.benchmarks.__main__ import RESULT_FILE, main
from experiments.benchmarks.rows import ROWS, Check
from experiments.benchmarks.runner import PartError, Runner
from experiments.benchmarks.settings import QUICK, Settings, with_steps
from experiments.benchmarks.timing import peak_megabytes, resident_megabytes

pytestmark = pytest.mark.slow


def _run(out, row):
    main(quick=True, row=[row], steps=None, repeats=None, out=out)
    result = json.loads((out / RESULT_FILE).read_text())
    (found,) = result["rows"]
    assert found["number"] == row
    assert not result["bars_apply"]
    assert {"cores", "gemm_gflops_float32", "tensorflow"} <= set(result["machine"])
    return {check["what"]: check for check in found["checks"]}


@pytest.mark.nightly
def test_a_row_in_training_steps(tmp_path):
    checks = _run(tmp_path, 3)
    assert checks["training steps per step"]["measured"] > 0
    assert checks["training steps per step"]["bar"] == 3
    assert checks["ledger balances to its tolerance"]["passed"]


@pytest.mark.nightly
def test_the_recording_row(tmp_path):
    assert all(check["measured"] > 0 and check["bar"] == 1.1 for check in _run(tmp_path, 9).values())


@pytest.mark.nightly
def test_the_row_of_long_runs(tmp_path):
    checks = _run(tmp_path, 12)
    assert checks["memory while recording / after the first thousand steps"]["bar"] == 1.05
    assert checks["files / those of the short run"]["passed"]
    assert all(check["measured"] > 0 for check in checks.values())


@pytest.mark.nightly
def test_the_row_of_first_answers(tmp_path):
    checks = _run(tmp_path, 13)
    assert checks["dense: first answer by sample"]["measured"] > 0
    assert all(check["passed"] for what, check in checks.items() if "traced" in what)


@pytest.mark.nightly
def test_a_part_in_a_process_of_its_own(tmp_path):
    machine = Runner(tmp_path, isolated=True).run("machine")
    assert machine["gemm_gflops_float32"] > 0


def test_a_part_that_does_not_exist(tmp_path):
    with pytest.raises(PartError, match="KeyError"):
        Runner(tmp_path, isolated=False).run("nothing")


def test_a_row_that_fails_is_reported_and_ends_with_an_error(tmp_path, monkeypatch, capsys):
    def fails(number, settings, runner):
        raise PartError("out of luck")

    monkeypatch.setitem(ROWS, 5, fails)
    monkeypatch.setattr(timing, "_gemm_gflops", lambda: 1.0)
    with pytest.raises(typer.Exit):
        main(quick=True, row=[5], steps=None, repeats=None, out=tmp_path)
    assert "out of luck" in capsys.readouterr().out
    assert json.loads((tmp_path / RESULT_FILE).read_text())["rows"] == [{"number": 5, "error": "out of luck"}]


def test_a_row_that_does_not_exist_is_refused(tmp_path):
    last = max(ROWS)
    with pytest.raises(typer.BadParameter, match=f"1 to {last}"):
        main(quick=True, row=[last + 1], steps=None, repeats=None, out=tmp_path)


@pytest.mark.parametrize(
    ("check", "passed"),
    [
        (Check("x", 2, 3), True),
        (Check("x", 3.1, 3), False),
        (Check("x", 25, 25, at_least=True), True),
        (Check("x", 24, 25, at_least=True), False),
        (Check("x", 24), None),
        (Check("x", math.nan, 3), False),
    ],
)
def test_bars(check, passed):
    assert check.passed is passed


def test_cut_settings_change_the_length_of_runs_alone():
    cut = with_steps(Settings(), 10)
    assert cut.full_batch.steps == cut.sampled.steps == 10
    assert cut.full_batch.samples == Settings().full_batch.samples
    assert with_steps(QUICK, 1000) == QUICK


def test_memory_is_read_in_megabytes():
    assert 10 < resident_megabytes() <= peak_megabytes() < 1e6
