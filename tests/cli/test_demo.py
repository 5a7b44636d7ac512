"""Version, help, and a demo of the smallest size, with its errors in one line."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import explaind_tf as xtf
from explaind_tf import demo
from explaind_tf.cli import app
from explaind_tf.ledgers.accessor import DatasetLedger

TINY = demo.DemoSettings(
    digits_side=11,
    digits_width=0.02,
    digits_steps=3,
    digits_batch=16,
    digits_inputs=6,
    digits_tolerance=0.05,
    modulus=5,
    addition_width=8,
    addition_samples=15,
    addition_steps=3,
    addition_batch=8,
    addition_inputs=6,
    shown_inputs=2,
    top=2,
)


def test_version(runner: CliRunner):
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"explaind-tf {xtf.__version__}\n")


def test_help_names_the_commands(runner: CliRunner):
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for text in ("demo", "info", "verify", "attribute", "report", "Exit codes: 0 fine; 1 refused"):
        assert text in result.output


def test_help_of_the_demo(runner: CliRunner):
    result = runner.invoke(app, ["demo", "--help"])
    assert result.exit_code == 0
    for option in ("--out", "--seed"):
        assert option in result.output


@pytest.mark.nightly
def test_demo(runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    checked = []
    check = DatasetLedger.check
    monkeypatch.setattr(demo, "DemoSettings", lambda: TINY)
    monkeypatch.setattr(DatasetLedger, "check", lambda self: (check(self), checked.append(self)))
    result = runner.invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--seed", "1"])
    assert result.exit_code == 0, result.output
    # For two models, once by `account_for` and once by the report; the fifth ledger, by weight, is a tree.
    assert len(checked) == 2 * 2 * 4
    for text in (
        "ResNet-9",
        "Transformer",
        "kernel machine",
        "mean KL",
        "|residual|",
        "proponents",
        "report.html",
        "explaind-tf explore",
    ):
        assert text in result.output
    assert "From which training data?" in (tmp_path / "demo" / "report.html").read_text()
    for name in ("resnet9-digits", "transformer-mod5"):
        run = xtf.open_run(tmp_path / "demo" / name)
        assert run.is_complete
        assert len(run.steps) == 3


def test_a_used_directory_is_refused_before_any_training(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(demo, "DemoSettings", lambda: TINY)
    # The directory of the second model: the first must not be trained in vain.
    (tmp_path / "transformer-mod5").mkdir()
    (tmp_path / "transformer-mod5" / "mine.txt").write_text("precious")
    result = runner.invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 1
    assert "is not empty" in result.output
    assert "--out" in result.output
    assert "Traceback" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["transformer-mod5"]


@pytest.mark.parametrize(
    ("error", "code"),
    [(xtf.UnbalancedLedgerError("off by [b]much[/b]"), 4), (xtf.RefusedError("off by\n[b]much[/b]"), 1)],
)
def test_expected_errors_are_one_line(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, code: int
):
    def fail(*args: object, **kwargs: object) -> Path:
        raise error

    monkeypatch.setattr(demo, "run_demo", fail)
    result = runner.invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert result.exit_code == code
    assert result.output == "Error: off by [b]much[/b]\n"


def test_inputs_shown_are_right_and_wrong_ones():
    labels = np.zeros(10, int)
    predicted = np.array([1, 1, 0, 1, 0, 1, 0, 0, 0, 0])
    assert demo._pick_inputs(predicted, labels, 4).tolist() == [2, 4, 0, 1]
    assert demo._pick_inputs(labels, labels, 4).tolist() == [0, 1, 2, 3]
    assert demo._pick_inputs(labels + 1, labels, 4).tolist() == [0, 1, 2, 3]
    assert demo._pick_inputs(predicted[:2], labels[:2], 4).tolist() == [0, 1]
