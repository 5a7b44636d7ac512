"""Trainings of replicas, in processes with two logical CPUs: levels, and counterfactual answers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.nightly(daily=False)]

BEGIN = """
import json, pathlib, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
"""

LEVELS = """
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


COUNTERFACTUAL = """
import keras
keras.config.set_floatx("float64")
import numpy as np
import explaind_tf as xtf
from explaind_tf.errors import RefusedError
from tests.contract.rows.replica_rows import mirrored

rng, STEP = np.random.default_rng(0), 1e-4
X, Y = rng.normal(size=(16, 5)), rng.integers(0, 3, 16)


def trained(optimizer, weights=None, *callbacks, norm=False):
    keras.utils.set_random_seed(1)
    layers = [keras.layers.BatchNormalization()] if norm else []
    with mirrored():
        model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(6, "tanh"), *layers, keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(0.02, weight_decay=0.1), loss)
    fit = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0, "callbacks": callbacks}
    model.fit(X, Y, sample_weight=weights, **fit)
    return np.asarray(model(X[:3]))


def difference(sample):
    ends = []
    for sign in (1, -1):
        weights = np.ones(16)
        weights[sample] += sign * STEP
        ends.append(trained(keras.optimizers.AdamW, weights))
    return (ends[0] - ends[1]) / (2 * STEP)


run_dir = pathlib.Path(sys.argv[1])
trained(xtf.PathAdamW, None, xtf.PathLogger(run_dir / "run", verbose=False))
run = xtf.open_run(run_dir / "run")
answer = run.counterfactual(X[:3], progress=False)
stored = run.samples.take(range(16))[0]
found = {}
for sample in (0, 5, 9):
    place = int(np.abs(stored - X[sample]).sum(axis=1).argmin())
    expected = difference(sample)
    off = np.abs(answer.response.isel(sample=place) - expected).max() / np.abs(expected).max()
    found[sample] = float(off)

trained(xtf.PathAdamW, None, xtf.PathLogger(run_dir / "norm", verbose=False), norm=True)
try:
    xtf.open_run(run_dir / "norm").counterfactual(X[:3], progress=False)
except RefusedError as refused:
    found["norm"] = str(refused)
print(json.dumps(found))
"""


def last_line_of(script: str, tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_what_is_not_known_by_sample_is_recorded_at_a_lower_level(tmp_path: Path):
    by_cause = {"level": "cause", "steps": 6, "same": True}
    assert last_line_of(LEVELS, tmp_path) == {
        "clipping": by_cause,
        "average": by_cause,
        "any optimizer": by_cause | {"level": "path"},
    }


def test_a_counterfactual_answer_is_that_of_training_again(tmp_path: Path):
    """Unless each replica has state of its own."""
    found = last_line_of(COUNTERFACTUAL, tmp_path)
    assert "several replicas, each with state of its own" in found.pop("norm")
    assert len(found) == 3 and max(found.values()) < 1e-6
