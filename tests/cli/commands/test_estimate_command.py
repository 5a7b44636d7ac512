"""estimate: what a longer run will take, and the codes it ends with."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from explaind_tf.runs.storage.records import RecordFile
from tests.cli.conftest import cut_short, error_of

Call = Callable[..., Result]


class TestEstimate:
    def test_json(self, call: Call, logits_run: Path):
        found = json.loads(call("estimate", logits_run, "--steps", 1000, "--json").stdout)
        steps = (logits_run / "steps-00000.tfrecord").stat().st_size
        assert found["bytes"] == pytest.approx(1000 / 6 * steps, rel=0.2)
        assert (found["steps"], found["every"], found["fits"]) == (1000, 1, True)
        assert found["seconds_per_step"]["training"] > 0
        few, many = found["attribution_seconds"]
        assert 0 < few < many

    def test_keyframes_further_apart_take_less(self, call: Call, logits_run: Path):
        dense, sparse = (
            json.loads(call("estimate", logits_run, "--steps", 10**6, "--every", every, "--json").stdout)
            for every in (1, 100)
        )
        assert sparse["bytes_per_step"] < dense["bytes_per_step"]

    def test_budget_finds_the_distance_of_keyframes(self, call: Call, logits_run: Path):
        result = call("estimate", logits_run, "--steps", 10**6, "--disk-budget", "400MB", "--json")
        found = json.loads(result.stdout)
        assert found["every"] > 1
        assert found["bytes"] <= 400e6

    def test_line(self, call: Call, logits_run: Path):
        said = call("estimate", logits_run, "--steps", 1000).stdout
        assert said.startswith("every=1: ")
        assert "for 1,000 steps" in said

    def test_what_the_disk_cannot_hold_ends_with_code_1(self, call: Call, logits_run: Path):
        result = call("estimate", logits_run, "--steps", 10**15, "--json")
        assert result.exit_code == 1
        assert json.loads(result.stdout)["fits"] is False
        assert "do not fit" in result.stderr

    def test_run_without_a_step_tells_nothing(self, call: Call, logits_run: Path, tmp_path: Path):
        run_dir = cut_short(logits_run, tmp_path / "run")
        steps = run_dir / "steps-00000.tfrecord.tmp"
        os.truncate(steps, RecordFile(steps, None)._offsets[1])
        result = call("estimate", run_dir, "--steps", 1000)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"{run_dir} has no whole step to estimate a longer run from" in result.stderr

    def test_every_and_budget_together_are_refused(self, call: Call, logits_run: Path):
        result = call("estimate", logits_run, "--steps", 10, "--every", 2, "--disk-budget", "1GB")
        assert result.exit_code == 1
        assert "Pass one, not both" in error_of(result)
