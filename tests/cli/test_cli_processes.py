"""Commands in processes of their own, with a run directory and a file of inputs and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def test_from_a_directory_with_a_run_and_a_file(logits_run: Path, npz: Path, tmp_path: Path):
    shutil.copytree(logits_run, tmp_path / "run")
    shutil.copy(npz, tmp_path / "test.npz")
    arguments = (
        "--inputs",
        "test.npz",
        "--measure",
        "log_prob",
        "--axes",
        "sample,step",
        "--out",
        "z.zarr",
        "--json",
    )
    done = python("-m", "explaind_tf.cli", "attribute", "run", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # nothing else is on stdout
    assert found["balances"]
    assert found["entries"][0]["proponents"][0]["sample"].startswith("sample ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "test.npz", "z.zarr"]

    (tmp_path / "run" / "samples-00000.tfrecord").unlink()
    done = python("-m", "explaind_tf.cli", "verify", "run", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.splitlines()[-1].startswith("Error: run/samples-00000.tfrecord is missing")
    assert "Traceback" not in done.stderr


def test_the_console_script_works(logits_run: Path, tmp_path: Path):
    done = python(
        "-c", "from explaind_tf.cli import app; app()", "verify", str(logits_run), "--json", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "fine"


def test_an_import_registers_everything(tmp_path: Path):
    script = """
import explaind_tf, keras, xarray
assert hasattr(xarray.Dataset, "explaind") and hasattr(xarray.DataTree, "explaind")
assert keras.saving.get_registered_object("explaind_tf>PathAdamW") is not None
"""
    done = python("-c", script, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
