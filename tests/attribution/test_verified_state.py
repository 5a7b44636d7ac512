"""`verify` holds statistics, seeds and second moments against those that each batch and its gradient leave."""

import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import X, Y, batches, dense_model, fit
from tests.runs.damage import STEPS, read_records, rewrite

layers = keras.layers


def _recorded(run_dir: Path, model: keras.Model, x: np.ndarray = X) -> xtf.Run:
    model.compile(xtf.PathAdamW(0.05), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False, retrain=False)
    fit(model, logger.tap(batches(x, Y)), logger, epochs=1)
    return xtf.open_run(run_dir)


@pytest.fixture(name="recorded", scope="module")
def _run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = dense_model(layers.BatchNormalization(), layers.Dropout(0.2, seed=1), layers.Dense(2))
    return _recorded(tmp_path_factory.mktemp("state") / "run", model).run_dir


def _changed(run_dir: Path, place: int, by: np.generic, field: str = "state") -> xtf.Run:
    """Add to a variable that is not trained, in the record of the last step."""
    records = read_records(run_dir / STEPS)
    example = tf.train.Example.FromString(records[-1])
    blobs = example.features.feature[field].bytes_list.value
    blobs[place] = (np.frombuffer(blobs[place], by.dtype) + by).tobytes()
    records[-1] = example.SerializeToString(deterministic=True)
    rewrite(run_dir, STEPS, records)
    return xtf.open_run(run_dir)


@pytest.mark.parametrize(
    ("place", "by", "path"),
    [
        (0, np.float32(1e-4), "moving_mean"),
        (1, np.float32(1e-4), "moving_variance"),
        (2, np.int64(1), "seed_generator"),
    ],
)
def test_a_state_that_its_batch_does_not_leave_is_found(
    recorded: Path, run_dir: Path, place: int, by: np.generic, path: str
):
    shutil.copytree(recorded, run_dir)
    _changed(run_dir, place, 0 * by).verify(progress=False)
    with pytest.raises(xtf.UnbalancedLedgerError, match=rf"Step 2 .*left another '.*{path}.* they differ by"):
        _changed(run_dir, place, by).verify(progress=False)


def test_a_second_moment_that_its_gradient_does_not_leave_is_found(recorded: Path, run_dir: Path):
    """It is so small a change that the step which it explains is still one that the law explains."""
    shutil.copytree(recorded, run_dir)
    last = xtf.open_run(run_dir).step_store.last().second_moment
    assert last is not None
    with pytest.raises(xtf.UnbalancedLedgerError, match=r"Step 2 .*another second moment of '.*gamma' than"):
        _changed(run_dir, 0, 0.001 * last.min(), "second_moment").verify(progress=False)


def test_second_moments_of_embeddings_are_not_accused(tmp_path: Path):
    """Keras adds the squares of each occurrence of a token, which no record holds."""
    tokens = np.array([[0, 0, 1], [2, 0, 1]] * 5, "int32")
    model = keras.Sequential(
        [keras.Input((3,), dtype="int32"), layers.Embedding(4, 2), layers.Flatten(), layers.Dense(2)]
    )
    _recorded(tmp_path / "run", model, tokens).verify(progress=False)


def test_rounding_of_large_inputs_is_not_accused(tmp_path: Path):
    # The mean of a feature is a small difference of large numbers: in float32 it is known to some 1e-3.
    x = X + np.where(np.arange(len(X))[:, None] % 2, 1e4, -1e4).astype("float32")
    model = dense_model(layers.BatchNormalization(momentum=0.5), layers.Dense(2))
    run_dir = _recorded(tmp_path / "run", model, x).run_dir
    _changed(run_dir, 0, np.float32(1e-3)).verify(progress=False)
    with pytest.raises(xtf.UnbalancedLedgerError, match="left another"):
        _changed(run_dir, 0, np.float32(1)).verify(progress=False)


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


class CallingTwice(keras.Sequential):
    """Calls the model twice in a training step, as adversarial trainings do. BatchNorm's statistics move twice."""

    def train_step(self, data):
        self(data[0], training=True)
        return super().train_step(data)


def test_state_that_no_step_leaves_as_its_batch_does_is_not_compared(tmp_path: Path):
    model = CallingTwice([keras.Input((3,)), layers.BatchNormalization(), layers.Dense(2)])
    run = _recorded(tmp_path / "run", model)
    run.verify(progress=False)
    ledger = run.attribute(X[:2], progress=False)
    ledger.explaind.check()
    assert abs(ledger["state"]).max() > 0
