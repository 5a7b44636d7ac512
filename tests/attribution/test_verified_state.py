"""`verify` holds statistics and seeds against those that each batch leaves."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import X, Y, batches, dense_model, fit
from tests.runs.damage import STEPS, read_records, rewrite

layers = keras.layers


def _recorded(run_dir: Path, model: keras.Model, x: np.ndarray = X, jit_compile: bool = False) -> xtf.Run:
    model.compile(xtf.PathAdamW(0.05), loss="mse", jit_compile=jit_compile)
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    fit(model, logger.tap(batches(x, Y)), logger, epochs=1)
    return xtf.open_run(run_dir)


@pytest.fixture(name="changed")
def _changed(tmp_path: Path):
    """A run, and a function that adds to one of its variables that are not trained, in the record of its last step."""
    model = dense_model(layers.BatchNormalization(), layers.Dropout(0.2, seed=1), layers.Dense(2))
    run_dir = _recorded(tmp_path / "run", model).run_dir

    def change(place: int, dtype: type, by: float) -> xtf.Run:
        records = read_records(run_dir / STEPS)
        example = tf.train.Example.FromString(records[-1])
        blobs = example.features.feature["state"].bytes_list.value
        blobs[place] = (np.frombuffer(blobs[place], dtype) + dtype(by)).tobytes()
        records[-1] = example.SerializeToString(deterministic=True)
        rewrite(run_dir, STEPS, records)
        return xtf.open_run(run_dir)

    return change


@pytest.mark.parametrize(
    ("place", "dtype", "path"),
    [(0, np.float32, "moving_mean"), (1, np.float32, "moving_variance"), (2, np.int64, "seed_generator")],
)
def test_a_state_that_its_batch_does_not_leave_is_found(changed, place: int, dtype: type, path: str):
    changed(place, dtype, 0).verify(progress=False)
    by = 1e-4 if dtype is np.float32 else 1
    with pytest.raises(xtf.UnbalancedLedgerError, match=rf"Step 2 .*left another '.*{path}.* they differ by"):
        changed(place, dtype, by).verify(progress=False)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_rounding_is_not_accused(tmp_path: Path, jit_compile: bool):
    # The mean of each feature is a small difference of large numbers, in another order in each compilation.
    x = X + np.where(np.arange(len(X))[:, None] % 2, 1e4, -1e4).astype("float32")
    model = dense_model(layers.BatchNormalization(momentum=0.5), layers.Dense(2))
    _recorded(tmp_path / "run", model, x, jit_compile).verify(progress=False)


class Averaging(keras.Sequential):
    """Keeps an average of a weight, as a teacher does, in its training step."""

    def train_step(self, data):
        found = super().train_step(data)
        average, weight = self.layers[-1].average, self.layers[0].kernel
        average.assign(0.9 * average + 0.1 * weight)
        return found


class _WithAverage(layers.Layer):
    def build(self, shape):
        self.average = self.add_weight(shape=(3, 2), trainable=False, name="average")

    def call(self, x):
        return x


def test_state_that_no_batch_changes_may_be_set(tmp_path: Path):
    model = Averaging([keras.Input((3,)), layers.Dense(2), _WithAverage()])
    run = _recorded(tmp_path / "run", model)
    assert not np.array_equal(run.step_store.state(0)[0], run.step_store.state(3)[0])
    run.verify(progress=False)
