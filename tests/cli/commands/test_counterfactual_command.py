"""counterfactual: what it prints of responses, their verdict, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from dask.distributed import LocalCluster
from typer.testing import Result

import explaind_tf as xtf
from tests.cli.conftest import error_of
from tests.helpers import LABELS, X

pytestmark = pytest.mark.slow

Call = Callable[..., Result]

CLOSE = {"rtol": 1e-4, "atol": 1e-6}


def asked(run: Path, npz: Path, *more: object) -> tuple[object, ...]:
    return ("counterfactual", run, "--inputs", npz, "--rows", "2:4", "--measure", "log_prob", *more)


class TestCounterfactual:
    def test_json_is_the_answer(self, call: Call, smooth_run: Path, npz: Path, tmp_path: Path):
        out = tmp_path / "answer.zarr"
        more = ("--top", 2, "--validate", 3, "--share", 0.2, "--smoothness", "--json", "--out", out)
        result = call(*asked(smooth_run, npz, *more))
        assert (result.exit_code, result.stderr) == (0, f"Answer: {out}\n")
        found = json.loads(result.stdout)
        run = xtf.open_run(smooth_run)
        answer = run.counterfactual(X[2:4], xtf.measurements.log_prob(LABELS[2:4]), progress=False)
        assert (found["inputs"], found["outputs"], found["samples"]) == (2, 1, 10)
        assert [entry["row"] for entry in found["entries"]] == [2, 3]
        ranked = {"proponents": answer.explaind.proponents(2), "opponents": answer.explaind.opponents(2)}
        for i, entry in enumerate(found["entries"]):
            np.testing.assert_allclose(entry["final"], answer.final[i, 0], **CLOSE)
            for side, ranking in ranked.items():
                assert [s["sample"] for s in entry[side]] == ranking["sample"].values[i, 0].tolist()
                np.testing.assert_allclose(
                    [s["response"] for s in entry[side]], ranking["influence"].values[i, 0], **CLOSE
                )
        verdict = answer.explaind.validate(3, 0.2)
        assert (found["verdict"]["retrainings"], found["verdict"]["left_out"]) == (3, 2)
        np.testing.assert_allclose(found["verdict"]["found_over_foretold"], verdict.size, rtol=1e-3)
        smoothness = run.smoothness(share=0.2, progress=False)
        np.testing.assert_allclose(found["smoothness"]["value"], smoothness.value, rtol=1e-3)
        with xr.open_zarr(out, consolidated=False) as written:
            np.testing.assert_allclose(written.response, answer.response, **CLOSE)
            assert written.attrs["verdict"] == found["verdict"]["text"]

        result = call(*asked(smooth_run, npz, "--out", out))
        assert result.exit_code == 1
        assert "exists" in error_of(result)

    @pytest.mark.filterwarnings(
        "ignore:unclosed <socket:ResourceWarning"
    )  # Dask leaves them to the collector
    def test_workers_answer_the_same(self, call: Call, logits_run: Path, npz: Path):
        alone = json.loads(call(*asked(logits_run, npz, "--json")).stdout)
        with LocalCluster(n_workers=1, processes=False, protocol="tcp://", dashboard_address=":0") as cluster:
            more = ("--json", "--scheduler", cluster.scheduler_address)
            shared = json.loads(call(*asked(logits_run, npz, *more)).stdout)
        for own, other in zip(shared["entries"], alone["entries"], strict=True):
            found, right = ([one["response"] for one in entry["proponents"]] for entry in (own, other))
            assert found == pytest.approx(right, rel=1e-3)

    def test_plan(self, call: Call, logits_run: Path, npz: Path, tmp_path: Path):
        out = tmp_path / "answer.zarr"
        found = json.loads(call(*asked(logits_run, npz, "--plan", "--out", out, "--json")).stdout)
        assert (found["steps"], found["inputs"], found["outputs"]) == (6, 2, 1)
        assert found["seconds"] > 0
        assert not out.exists()

    def test_tables_end_with_the_way_to_a_verdict(self, call: Call, logits_run: Path, npz: Path):
        result = call(*asked(logits_run, npz))
        assert (result.exit_code, result.stderr) == (0, "")
        for text in (
            "of 2 inputs × 1 outputs after training",
            "10 samples in all steps",
            "falls without",
            "sample 3",
            "minus",
        ):
            assert text in result.stdout, text
        assert "--validate 8" in result.stdout.splitlines()[-1]
        assert "Smoothness" not in result.stdout

    def test_tables_end_with_the_verdict(self, call: Call, smooth_run: Path, npz: Path):
        result = call(*asked(smooth_run, npz, "--validate", 2))
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Rank correlation with 2 trainings, each without 1 sample:" in result.stdout.splitlines()[-1]

    def test_a_refused_verdict_leaves_the_answer(self, call: Call, logits_run: Path, npz: Path):
        result = call(*asked(logits_run, npz, "--validate", 2, "--json"))
        assert result.exit_code == 1
        found = json.loads(result.stdout)
        assert (found["verdict"], len(found["entries"])) == (None, 2)
        assert "does not hold the training step" in result.stderr

    @pytest.mark.parametrize("arguments", [("--validate", 1), ("--validate", 2, "--share", 1)])
    def test_draws_are_checked_first(
        self, call: Call, logits_run: Path, npz: Path, arguments: tuple[object, ...]
    ):
        result = call(*asked(logits_run, npz, *arguments))
        assert result.exit_code == 1
        assert "2 or more retrainings" in error_of(result)
