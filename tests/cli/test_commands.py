"""info, verify, attribute and report: what they print, and the codes they end with."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import xarray as xr
from typer.testing import Result

import explaind_tf as xtf
from explaind_tf.cli import facts
from explaind_tf.ledgers.accessor import DatasetLedger
from explaind_tf.runs.storage.records import RecordFile
from tests.helpers import LABELS, X, batches, dense_model, digest, fit

Call = Callable[..., Result]

# Routes are chosen by how long they take, so that two equal calls differ by the rounding of float32; what moved here
# moved by some tenths.
SAME = {"rtol": 0, "atol": 1e-6}


def error_of(result: Result) -> str:
    """Return the one line on the error stream."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert result.stdout == ""
    return lines[0]


def approximately(value: Any) -> Any:
    """Return nested plain data that compares its numbers up to rounding."""
    if isinstance(value, dict):
        return {key: approximately(item) for key, item in value.items()}
    if isinstance(value, list):
        return [approximately(item) for item in value]
    return pytest.approx(value, rel=0, abs=SAME["atol"]) if isinstance(value, float) else value


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
        assert "not both" in error_of(result)


class TestInfo:
    def test_json(self, call: Call, logits_run: Path):
        found = json.loads(call("info", logits_run, "--json").stdout)
        run = xtf.open_run(logits_run)
        assert found["run_id"] == run.run_id
        assert (found["steps"], found["samples"], found["weights"]) == (6, 10, 20)
        assert found["layers"] == list(run.layers)
        assert found["inputs"] == [{"name": "x", "dtype": "float32", "shape": [None, 3]}]
        assert found["targets"] == [{"name": "y", "dtype": "int64", "shape": [None]}]
        assert found["axes"] == ["sample", "step", "layer", "parameter"]
        assert found["bytes"] == sum(
            len(path.read_bytes()) for path in logits_run.rglob("*") if path.is_file()
        )
        assert found["optimizer"]["law"] == "AdamW"
        assert found["environment"]["keras"] == keras.__version__

    def test_table(self, call: Call, logits_run: Path):
        result = call("info", logits_run)
        assert (result.exit_code, result.stderr) == (0, "")
        for text in ("x: float32(batch, 3)", "weight_decay=0.1", "sparse_categorical_crossentropy", "hidden"):
            assert text in result.stdout

    def test_a_run_cut_short_is_said_to_be_so(self, call: Call, logits_run: Path, tmp_path: Path):
        run_dir = cut_short(logits_run, tmp_path / "run")
        result = call("info", run_dir, "--json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["status"] == "recording"
        assert result.stderr.startswith("Warning: ")
        assert "was cut short" in result.stderr

    def test_no_run(self, call: Call, tmp_path: Path):
        result = call("info", tmp_path)
        assert result.exit_code == 3
        assert "is not a recorded run" in error_of(result)


def cut_short(run_dir: Path, copy: Path) -> Path:
    """Return a run that was abandoned by its process after the first steps."""
    model = dense_model()
    model.compile(xtf.PathSGD(0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(copy, verbose=False)

    def stop(batch: int, logs: object) -> None:
        if batch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(model, logger.tap(batches()), logger, keras.callbacks.LambdaCallback(on_train_batch_end=stop))
    return copy


class TestVerify:
    @pytest.mark.parametrize("option", ["--replay", "--no-replay"])
    def test_fine(self, call: Call, logits_run: Path, option: str):
        result = call("verify", logits_run, option, "--json")
        assert (result.exit_code, result.stderr) == (0, "")
        found = json.loads(result.stdout)
        assert (found["status"], found["steps"], found["complete"]) == ("fine", 6, True)
        assert found["replayed"] == (option == "--replay")
        assert f"{logits_run} is fine: 6 steps" in call("verify", logits_run, option).stdout

    @pytest.mark.parametrize("file", ["steps-00000.tfrecord", "samples-00000.tfrecord"])
    def test_damaged(self, call: Call, logits_run: Path, tmp_path: Path, file: str):
        shutil.copytree(logits_run, tmp_path / "run")
        path = tmp_path / "run" / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        result = call("verify", tmp_path / "run", "--no-replay")
        assert result.exit_code == 3
        assert file in error_of(result)
        result = call("verify", tmp_path / "run", "--no-replay", "--json")
        assert json.loads(result.stdout)["status"] == "damaged"

    def test_unbalanced(self, call: Call, logits_run: Path, monkeypatch: pytest.MonkeyPatch):
        def fail(self: xtf.Run, **options: object) -> None:
            raise xtf.UnbalancedLedgerError("step 3 was not taken")

        monkeypatch.setattr(xtf.Run, "verify", fail)
        result = call("verify", logits_run)
        assert (result.exit_code, error_of(result)) == (4, "Error: step 3 was not taken")
        found = json.loads(call("verify", logits_run, "--json").stdout)
        assert (found["status"], found["message"]) == ("unbalanced", "step 3 was not taken")


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
        monkeypatch.setattr(facts, "_BLOCK_BYTES", 1)
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
        assert json.loads(call(*arguments, "--json").stdout) == found  # it goes on, with nothing left to do
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
            (("--measure", "loss", "--loss", "nope"), "Keras knows no loss 'nope'"),
            (("--measure", "margin", "--outputs-are", "probabilities"), "are no probabilities"),
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

    @pytest.mark.parametrize("measure", ["log_prob", "margin", "loss"])
    def test_probabilities_are_not_taken_for_logits(
        self, call: Call, probabilities_run: Path, npz: Path, measure: str
    ):
        arguments = ("attribute", probabilities_run, "--inputs", npz, "--measure", measure)
        result = call(*arguments)
        assert result.exit_code == 1
        assert "look like probabilities" in error_of(result)
        assert call(*arguments, "--outputs-are", "logits").exit_code == 0  # who knows better may say so

    def test_a_margin_is_of_logits(self, call: Call, probabilities_run: Path, npz: Path):
        said = ("--measure", "margin", "--outputs-are", "probabilities")
        result = call("attribute", probabilities_run, "--inputs", npz, *said)
        assert result.exit_code == 1
        assert "Use log_prob" in error_of(result)

    def test_the_loss_of_training(self, call: Call, small_run, tmp_path: Path):
        y = np.zeros((10, 2), "float32")
        np.savez(tmp_path / "test.npz", x=X, y=y)
        flat = self.ask(call, small_run.run_dir, tmp_path / "test.npz")
        found = self.ask(call, small_run.run_dir, tmp_path / "test.npz", "--measure", "loss")
        np.testing.assert_allclose(found, np.square(np.reshape(flat, (10, 2))).mean(axis=1), rtol=1e-5)


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
