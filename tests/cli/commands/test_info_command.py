"""info: what it prints of a run, and the codes it ends with."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
from typer.testing import Result

import explaind_tf as xtf
from tests.cli.conftest import cut_short, error_of

Call = Callable[..., Result]


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
