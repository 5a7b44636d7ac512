"""Trainings of replicas whose samples are not known, in a process with two logical CPUs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.nightly(daily=False)]

SCRIPT = """
import json, pathlib, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
import numpy as np
import explaind_tf as xtf
from tests.contract.rows.replica_rows import Remembers, mirrored
from tests.helpers import X, batches, dense_model, fit

found = {}


def trained(layers, optimizer, *callbacks):
    keras.utils.set_random_seed(0)
    with mirrored():
        model = dense_model(*layers())
        model.compile(optimizer(), loss="mse")
    fit(model, batches(), *callbacks, epochs=2)
    return [variable.numpy() for variable in model.trainable_variables]


def held(name, layers, ours, theirs, level):
    run_dir = pathlib.Path(sys.argv[1]) / name
    weights = trained(layers, ours, xtf.PathLogger(run_dir, require=level, verbose=False))
    plain = trained(layers, theirs)
    run = xtf.open_run(run_dir)
    run.attribute(X[:2], axes=("step",), tolerance=1e-4, progress=False).explaind.check()
    same = all(np.array_equal(a, b) for a, b in zip(weights, plain, strict=True))
    found[name] = {"level": run.level, "steps": len(run.steps), "same": same}


two = lambda: [keras.layers.Dense(4, "tanh"), keras.layers.Dense(2)]
remembers = lambda: [keras.layers.Dense(4, "tanh"), Remembers(), keras.layers.Dense(2)]
clipped = {"global_clipnorm": 0.1}
path, plain = xtf.PathAdamW, keras.optimizers.AdamW
held("clipping", two, lambda: path(0.05, **clipped), lambda: plain(0.05, **clipped), "cause")
held("average", remembers, lambda: path(0.05), lambda: plain(0.05), "cause")
held("any optimizer", two, lambda: plain(0.05), lambda: plain(0.05), "path")
print(json.dumps(found))
"""


def test_what_is_not_known_by_sample_is_recorded_at_a_lower_level(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    by_cause = {"level": "cause", "steps": 6, "same": True}
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "clipping": by_cause,
        "average": by_cause,
        "any optimizer": by_cause | {"level": "path"},
    }
