"""attribute: what it prints of a ledger, and the codes it ends with."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from dask.distributed import LocalCluster
from typer.testing import Result

import explaind_tf as xtf
from explaind_tf.cli import answer_facts
from explaind_tf.ledgers.accessor import DatasetLedger
from tests.cli.conftest import error_of
from tests.helpers import LABELS, X, digest

pytestmark = pytest.mark.slow

Call = Callable[..., Result]

# Routes are chosen by their time, so two equal calls may differ by the rounding of float32. Outputs move by a few tenths
# here.
SAME = {"rtol": 0, "atol": 1e-6}


def approximately(value: Any) -> Any:
    """Return nested plain data that compares its numbers up to rounding."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, list):
        return [approximately(item) for item in value]
    return pytest.approx(value, rel=0, abs=SAME["atol"]) if isinstance(value, float) else value


class TestAttribute:
    def test_json_is_the_ledger(self, call: Call, logits_run: Path, npz: Path):
        result = call(
            *("attribute", logits_run, "--inputs", npz, "--rows", "2:5", "--measure", "log_prob", "--json"),
            *("--axes", "sample,layer", "--top", 2),
        )
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        ledger = xtf.open_run(logits_run).attribute(
            X[2:5], xtf.measurements.log_prob(LABELS[2:5]), axes=("sample", "layer"), progress=False
        )
        assert (found["inputs"], found["outputs"], found["steps"]) == (3, 1, [0, 5])
        assert found["balances"] is True
        assert [entry["row"] for entry in found["entries"]] == [2, 3, 4]
        ranked = {"proponents": ledger.explaind.proponents(2), "opponents": ledger.explaind.opponents(2)}
        for i, entry in enumerate(found["entries"]):
            np.testing.assert_allclose(entry["final"], ledger.final[i, 0], **SAME)
            np.testing.assert_allclose(entry["movement"], ledger.movement[i], **SAME)
            for term in ("data", "weight_decay", "residual"):
                np.testing.assert_allclose(entry["terms"][term], ledger.explaind.total(term)[i, 0], **SAME)
            for side, ranking in ranked.items():
                assert [s["sample"] for s in entry[side]] == ranking["sample"].values[i, 0].tolist()
                np.testing.assert_allclose(
                    [s["influence"] for s in entry[side]], ranking["influence"].values[i, 0], **SAME
                )
        means = ledger.data.sum("sample").mean(["input", "output"])
        assert [row["layer"] for row in found["by"]["layer"]] == ledger.layer.values.tolist()
        np.testing.assert_allclose([row["data"] for row in found["by"]["layer"]], means, **SAME)
        np.testing.assert_allclose(sum(found["mean_terms"].values()), found["mean_change"], rtol=1e-9)

    def test_tables(self, call: Call, logits_run: Path, npz: Path):
        result = call("attribute", logits_run, "--inputs", npz, "--axes", "sample,step,layer", "--top", 3)
        assert (result.exit_code, result.stderr) == (0, "")
        for text in (
            "outputs of 10 inputs × 2 outputs, steps 0 to 5",
            "weight_decay",
            "largest |residual|",
            "balances to 0.001",
            "Mean change by layer",
            "Mean change by step",
            "the 3 strongest of 6",
            "proponents",
            "sample 3",
            "10 of 20 predictions",
        ):
            assert text in result.stdout, text

    def test_by_weight(self, call: Call, logits_run: Path, npz: Path):
        arguments = ("attribute", logits_run, "--inputs", npz, "--axes", "parameter", "--steps", "1:4")
        found = json.loads(call(*arguments, "--json").stdout)
        assert found["steps"] == [1, 3]
        assert [row["variable"] for row in found["by"]["variable"]] == [
            variable.path for variable in xtf.open_run(logits_run).variables
        ]
        total = sum(row["data"] for row in found["by"]["variable"])
        np.testing.assert_allclose(total, found["mean_terms"]["data"], rtol=1e-9)
        assert "Mean change by variable" in call(*arguments).stdout

    @pytest.mark.parametrize("axes", ["sample,step,layer", "parameter"])
    def test_a_ledger_larger_than_memory_is_read_by_blocks(
        self, call: Call, logits_run: Path, npz: Path, monkeypatch: pytest.MonkeyPatch, axes: str
    ):
        arguments = ("attribute", logits_run, "--inputs", npz, "--axes", axes, "--json")
        whole = json.loads(call(*arguments).stdout)
        monkeypatch.setattr(answer_facts, "_BLOCK_BYTES", 1)
        by_blocks = json.loads(call(*arguments).stdout)
        assert by_blocks["entries"] == approximately(whole["entries"])
        assert by_blocks["by"] == approximately(whole["by"])

    def test_out(self, call: Call, logits_run: Path, npz: Path, tmp_path: Path):
        out = tmp_path / "ledger.zarr"
        arguments = ("attribute", logits_run, "--inputs", npz, "--axes", "layer", "--out", out)
        result = call(*arguments, "--json")
        assert (result.exit_code, result.stderr) == (0, f"Ledger: {out}\n")
        found = json.loads(result.stdout)
        assert found["out"] == str(out)
        with xr.open_zarr(out, consolidated=False) as ledger:
            ledger.explaind.check()
            np.testing.assert_allclose(ledger.final.values.ravel(), [e["final"] for e in found["entries"]])
        written = digest(out)
        assert json.loads(call(*arguments, "--json").stdout) == found  # it continues, with nothing left to do
        assert digest(out) == written
        result = call(*arguments, "--rows", "0:2")
        assert result.exit_code == 1
        assert "holds another attribution" in error_of(result)

    def test_plan(self, call: Call, logits_run: Path, npz: Path, tmp_path: Path):
        arguments = (
            "attribute",
            logits_run,
            "--inputs",
            npz,
            "--axes",
            "sample",
            "--plan",
            "--out",
            tmp_path / "z",
        )
        found = json.loads(call(*arguments, "--json").stdout)
        assert (found["steps"], found["inputs"], found["outputs"]) == (6, 10, 2)
        assert found["seconds"] > 0
        assert found["passes"][0]["name"] == "forward"
        assert "memory" in call(*arguments).stdout
        assert not (tmp_path / "z").exists()

    @pytest.mark.filterwarnings(
        "ignore:unclosed <socket:ResourceWarning"
    )  # Dask leaves them to the collector
    @pytest.mark.parametrize("kind", ["scheduler", pytest.param("workers", marks=pytest.mark.nightly)])
    def test_workers_answer_the_same(self, call: Call, logits_run: Path, npz: Path, kind: str):
        arguments = ("attribute", logits_run, "--inputs", npz, "--axes", "layer", "--json")
        alone = json.loads(call(*arguments).stdout)
        if kind == "workers":
            shared = json.loads(call(*arguments, "--workers", 1).stdout)
        else:
            # In threads of this process, they need not import TensorFlow.
            with LocalCluster(
                n_workers=1, processes=False, protocol="tcp://", dashboard_address=":0"
            ) as cluster:
                address = cluster.scheduler_address
                shared = json.loads(call(*arguments, "--scheduler", address).stdout)
        assert shared["balances"]
        for own, other in zip(shared["entries"], alone["entries"], strict=True):
            assert own["terms"] == pytest.approx(other["terms"], abs=1e-5)

    def test_workers_of_two_kinds_are_refused(self, call: Call, logits_run: Path, npz: Path):
        result = call(
            "attribute", logits_run, "--inputs", npz, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1"
        )
        assert result.exit_code == 1
        assert "got both" in error_of(result)

    def test_unbalanced(self, call: Call, logits_run: Path, npz: Path):
        arguments = ("attribute", logits_run, "--inputs", npz, "--tolerance", "1e-12")
        result = call(*arguments)
        assert result.exit_code == 4
        assert "DOES NOT BALANCE to 1e-12" in result.stdout
        assert result.stderr.startswith("Error: The ledger does not balance to 1e-12")
        assert len(result.stderr.splitlines()) == 1
        result = call(*arguments, "--json")
        assert (result.exit_code, json.loads(result.stdout)["balances"]) == (4, False)

    def test_numbers_that_json_does_not_know(
        self, call: Call, logits_run: Path, npz: Path, monkeypatch: pytest.MonkeyPatch
    ):
        total = DatasetLedger.total
        monkeypatch.setattr(DatasetLedger, "total", lambda self, term: total(self, term) * np.nan)
        result = call("attribute", logits_run, "--inputs", npz, "--json")
        assert result.exit_code == 4
        assert json.loads(result.stdout)["residual"] is None

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--axes", "sampel"), "Unknown axes ['sampel']"),
            (("--axes", "layer", "--layers", "sequential/nope"), "The layers with weights are"),
            (("--axes", "group"), "run.attribute"),
            (("--steps", "7:9"), "the run has the steps 0 … 5"),
            (("--tolerance", "2"), "between 0 and 1"),
            (("--loss", "mse"), "--loss belongs to --measure loss"),
            (("--measure", "loss", "--loss", "nope"), "Keras has no loss 'nope'"),
            (("--measure", "margin", "--outputs-are", "probabilities"), "are not probabilities"),
            (("--measure", "log_prob", "--output", "nope"), "output='nope'"),
        ],
    )
    def test_refused(self, call: Call, logits_run: Path, npz: Path, arguments: tuple[str, ...], message: str):
        result = call("attribute", logits_run, "--inputs", npz, *arguments)
        assert result.exit_code == 1
        assert message in error_of(result)

    @pytest.mark.parametrize(
        "arguments", [(), ("--rows", "5:5"), ("--memory-limit", "much"), ("--measure", "nope"), ("--nope",)]
    )
    def test_wrong_usage(self, call: Call, logits_run: Path, npz: Path, arguments: tuple[str, ...]):
        given = ("--inputs", npz) if arguments else ()
        result = call("attribute", logits_run, *given, *arguments)
        assert (result.exit_code, result.stdout) == (2, "")
