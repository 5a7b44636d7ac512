"""report: the file that it writes, and the codes it ends with."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.conftest import error_of

pytestmark = pytest.mark.slow

Call = Callable[..., Result]


class TestReport:
    def test_it_is_written(self, call: Call, logits_run: Path, npz: Path, tmp_path: Path):
        out, board = tmp_path / "report.html", tmp_path / "board"
        asked = ("report", logits_run, "--inputs", npz, "--rows", "1:7", "--out", out, "--shown", 2)
        result = call(*asked, "--tensorboard", board, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        assert (found["report"], found["agreement"]) == (str(out), 1.0)
        text = out.read_text()
        for part in (
            "For each of 6 held-out inputs",
            "input 1",
            "input 2",
            "The model says",
            "sample 3",
            "label ",
        ):
            assert part in text, part
        assert "input 3" not in text
        assert [path.name for path in board.iterdir() if "tfevents" in path.name]

    def test_both_answers(self, call: Call, smooth_run: Path, npz: Path, tmp_path: Path):
        out = tmp_path / "report.html"
        more = ("--counterfactual", "--validate", 2, "--shown", 1, "--tolerance", "1e-2")
        result = call("report", smooth_run, "--inputs", npz, "--rows", "0:2", "--out", out, *more)
        assert (result.exit_code, result.stderr) == (0, "")
        text = out.read_text()
        assert "What if a sample had been left out?" in text
        assert "Rank correlation with 2 trainings, each without 1 sample:" in text

    def test_a_verdict_needs_the_question(self, call: Call, smooth_run: Path, npz: Path, tmp_path: Path):
        result = call("report", smooth_run, "--inputs", npz, "--out", tmp_path / "r.html", "--validate", 2)
        assert result.exit_code == 1
        assert "--validate needs --counterfactual" in error_of(result)

    def test_the_directory_is_looked_for_first(self, call: Call, logits_run: Path, npz: Path, tmp_path: Path):
        result = call("report", logits_run, "--inputs", npz, "--out", tmp_path / "nope" / "report.html")
        assert result.exit_code == 1
        assert "There is no directory" in error_of(result)

    def test_probabilities_are_refused(self, call: Call, probabilities_run: Path, npz: Path, tmp_path: Path):
        out = tmp_path / "report.html"
        result = call("report", probabilities_run, "--inputs", npz, "--out", out)
        assert result.exit_code == 1
        assert "--outputs-are probabilities" in error_of(result)
        assert not out.exists()
