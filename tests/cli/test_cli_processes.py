"""Commands and imports in fresh processes, with a run directory and a file of inputs and nothing else."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.attribution.test_two_derivatives import Call, hard_sign, reversed_gradient, trained
from tests.helpers import X

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


# To import Keras takes seconds, so one process does what follows, in this order. Each part is noted for a test of its own.
SCRIPT = """
import contextlib, io, json, os, runpy, sys, traceback

found = {}


def note(name):
    def run(part):
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                part()
            except SystemExit as end:
                code = end.code or 0
            except BaseException:
                code = 1
                traceback.print_exc()
        found[name] = {"code": code, "stdout": out.getvalue(), "stderr": err.getvalue()}

    return run


@note("light")
def without_tensorflow():
    import typer
    import explaind_tf
    from explaind_tf.cli import app

    commands = sorted(typer.main.get_command(app).commands)
    lines = [["--help"], *([command, "--help"] for command in commands), ["info", "run", "--json"]]
    for line in [*lines, ["estimate", "run", "--steps", "100"]]:
        try:
            app(line)
        except SystemExit as end:
            assert not end.code, line
    heavy = {"tensorflow", "keras", "xarray", "pandas", "zarr", "h5py", "plotly"} & set(sys.modules)
    assert not heavy, heavy


@note("replicas")
def of_replicas():
    import tempfile
    from pathlib import Path
    import numpy as np
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    import explaind_tf as xtf
    from tests.contract.rows import ROWS
    from tests.contract.test_contract import hold_to_the_contract
    from tests.helpers import dtype_policy

    row = next(row for row in ROWS if row.logical_devices == 2)
    with dtype_policy(row.policy), tempfile.TemporaryDirectory() as directory:
        hold_to_the_contract(row, Path(directory) / "run")
        run = xtf.open_run(Path(directory) / "run")
        steps = [run.step_store.recorded(step) for step in run.steps]
        updates, sizes = [step.updates for step in steps], [len(step.rows) for step in steps]
        try:
            run.retrain(np.ones(len(run.samples)), progress=False)
        except xtf.RefusedError as error:
            print(json.dumps({"updates": updates, "sizes": sizes, "retrain": str(error)}))


@note("import")
def imported():
    import explaind_tf, keras, xarray
    assert hasattr(xarray.Dataset, "explaind") and hasattr(xarray.DataTree, "explaind")
    assert keras.saving.get_registered_object("explaind_tf>PathAdamW") is not None


@note("plotly")
def drawn():
    import numpy as np, xarray as xr
    from explaind_tf import terms

    zero = xr.DataArray(np.zeros((1, 1)), dims=("input", "output"))
    variables = dict.fromkeys((*terms.terms_of("recorded"), "initial", "final"), zero)
    ledger = xr.Dataset(variables, {"input": [0], "output": [0], "movement": ("input", [0.0])})
    for found in (ledger, xr.DataTree(ledger)):
        found.explaind.check(1.0)
    assert "plotly" not in sys.modules
    for found in (ledger, xr.DataTree(ledger)):
        assert type(found.explaind.plot).__name__ == "LedgerPlots"
        assert type(found.explaind.plot.balance()).__name__ == "Figure"
    assert "plotly" in sys.modules


@note("damaged")
def of_a_damaged_run():
    sys.argv = ["explaind-tf", "verify", "damaged"]
    runpy.run_module("explaind_tf.cli", run_name="__main__", alter_sys=True)


@note("console")
def console():
    from explaind_tf.cli import app
    sys.argv = ["explaind-tf", "verify", "run", "--json"]
    app()


@note("attribute")
def attributed():
    options = "--inputs test.npz --measure log_prob --axes sample,step --out z.zarr --json"
    sys.argv = ["explaind-tf", "attribute", "run", *options.split()]
    runpy.run_module("explaind_tf.cli", run_name="__main__", alter_sys=True)


@note("own layers")
def of_layers_of_its_own():
    import numpy as np
    from tensorflow.python.framework import ops
    import explaind_tf as xtf

    before = set(ops.gradient_registry._registry)
    run = xtf.open_run("own")
    run.verify(progress=False)
    ledger = run.attribute(np.load("x.npy"), axes=("sample",), tolerance=1e-4, progress=False)
    ledger.explaind.check()
    added = sorted(name for name in set(ops.gradient_registry._registry) - before if "CustomGradient" in name)
    print(json.dumps({"data": ledger.data.values.tolist(), "added": added}))


found["files"] = sorted(os.listdir())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def own_layers(tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
    """A run whose layers and custom gradients no other process knows."""
    layers = [Call(reversed_gradient), keras.layers.Activation("swish"), Call(hard_sign)]
    return trained(tmp_path_factory.mktemp("own") / "run", layers)


@pytest.fixture(scope="module")
def found(
    logits_run: Path, own_layers: xtf.Run, npz: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What each part of the script did: its exit code, and what it wrote to stdout and stderr. And the files then."""
    directory = tmp_path_factory.mktemp("process")
    shutil.copytree(logits_run, directory / "run")
    shutil.copy(npz, directory / "test.npz")
    shutil.copytree(logits_run, directory / "damaged")
    (directory / "damaged" / "samples-00000.tfrecord").unlink()
    shutil.copytree(own_layers.run_dir, directory / "own")
    np.save(directory / "x.npy", X[:4])
    done = python("-c", SCRIPT, cwd=directory)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # nothing else is on stdout


def test_from_a_directory_with_a_run_and_a_file(found: dict[str, Any]):
    done = found["attribute"]
    assert done["code"] == 0, done["stderr"]
    answer = json.loads(done["stdout"])  # nothing else is on stdout
    assert answer["balances"]
    assert answer["entries"][0]["proponents"][0]["sample"].startswith("sample ")
    assert found["files"] == ["damaged", "own", "run", "test.npz", "x.npy", "z.zarr"]


def test_layers_and_custom_gradients_need_not_exist(found: dict[str, Any], own_layers: xtf.Run):
    done = found["own layers"]
    assert done["code"] == 0, done["stderr"]
    answer = json.loads(done["stdout"])
    assert answer["added"] == []
    ledger = own_layers.attribute(X[:4], axes=("sample",), tolerance=1e-4, progress=False)
    ledger.explaind.check()
    np.testing.assert_allclose(answer["data"], ledger.data, atol=1e-5)


def test_what_needs_no_tensorflow_does_not_import_it(found: dict[str, Any]):
    done = found["light"]
    assert done["code"] == 0, done["stderr"]
    assert '"level": "sample"' in done["stdout"]


def test_a_damaged_run_ends_with_a_line(found: dict[str, Any]):
    done = found["damaged"]
    assert (done["code"], done["stdout"]) == (3, "")
    assert done["stderr"].splitlines()[-1].startswith("Error: damaged/samples-00000.tfrecord is missing")
    assert "Traceback" not in done["stderr"]


def test_the_console_script_works(found: dict[str, Any]):
    done = found["console"]
    assert done["code"] == 0, done["stderr"]
    assert json.loads(done["stdout"])["status"] == "fine"


def test_an_import_registers_everything(found: dict[str, Any]):
    assert found["import"]["code"] == 0, found["import"]["stderr"]


def test_replicas_are_exact(found: dict[str, Any]):
    """The row of the contract that needs a process of its own."""
    done = found["replicas"]
    assert done["code"] == 0, done["stderr"]
    seen = json.loads(done["stdout"])
    assert seen["updates"] == [False, True] * 9
    assert seen["sizes"] == [2, 2, 2, 2, 1, 1] * 3
    assert "under a tf.distribute.MirroredStrategy" in seen["retrain"]


def test_plotly_is_loaded_at_the_first_figure(found: dict[str, Any]):
    assert found["plotly"]["code"] == 0, found["plotly"]["stderr"]
