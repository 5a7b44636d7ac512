"""attribute --measure: each measurement is that of its name, and logits are not confused with probabilities."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

from tests.cli.conftest import error_of
from tests.helpers import LABELS, X
from tests.nightly import sweep

pytestmark = pytest.mark.slow

Call = Callable[..., Result]


class TestMeasures:
    def ask(self, call: Call, run_dir: Path, npz: Path, *arguments: str) -> list[float]:
        result = call("attribute", run_dir, "--inputs", npz, "--json", *arguments)
        assert result.exit_code == 0, result.output
        return [entry["final"] for entry in json.loads(result.stdout)["entries"]]

    def test_those_of_logits(self, call: Call, logits_run: Path, npz: Path):
        flat = self.ask(call, logits_run, npz)
        logits = np.reshape(flat, (10, 2))
        own, other = logits[np.arange(10), LABELS], logits[np.arange(10), 1 - LABELS]
        log_prob = -np.log1p(np.exp(other - own))
        # Single precision.
        same = {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(
            self.ask(call, logits_run, npz, "--measure", "margin"), own - other, **same
        )
        np.testing.assert_allclose(self.ask(call, logits_run, npz, "--measure", "log_prob"), log_prob, **same)
        np.testing.assert_allclose(self.ask(call, logits_run, npz, "--measure", "loss"), -log_prob, **same)

    def test_those_of_probabilities(self, call: Call, probabilities_run: Path, npz: Path):
        flat = self.ask(call, probabilities_run, npz)
        log_prob = np.log(np.reshape(flat, (10, 2))[np.arange(10), LABELS])
        said = ("--outputs-are", "probabilities")
        same = {"rtol": 1e-5, "atol": 1e-6}
        for measure, expected in (("log_prob", log_prob), ("loss", -log_prob)):
            found = self.ask(call, probabilities_run, npz, "--measure", measure, *said)
            np.testing.assert_allclose(found, expected, **same)

    @pytest.mark.parametrize("measure", sweep(("log_prob", "margin", "loss"), core=("margin",)))
    def test_probabilities_are_not_taken_for_logits(
        self, call: Call, probabilities_run: Path, npz: Path, measure: str
    ):
        arguments = ("attribute", probabilities_run, "--inputs", npz, "--measure", measure)
        result = call(*arguments)
        assert result.exit_code == 1
        assert "look like probabilities" in error_of(result)
        assert (
            call(*arguments, "--outputs-are", "logits").exit_code == 0
        )  # saying that they are logits skips the check

    def test_a_margin_is_of_logits(self, call: Call, probabilities_run: Path, npz: Path):
        said = ("--measure", "margin", "--outputs-are", "probabilities")
        result = call("attribute", probabilities_run, "--inputs", npz, *said)
        assert result.exit_code == 1
        assert "Use --measure log_prob" in error_of(result)

    def test_the_loss_of_training(self, call: Call, small_run, tmp_path: Path):
        y = np.zeros((10, 2), "float32")
        np.savez(tmp_path / "test.npz", x=X, y=y)
        flat = self.ask(call, small_run.run_dir, tmp_path / "test.npz")
        found = self.ask(call, small_run.run_dir, tmp_path / "test.npz", "--measure", "loss")
        np.testing.assert_allclose(found, np.square(np.reshape(flat, (10, 2))).mean(axis=1), rtol=1e-5)
