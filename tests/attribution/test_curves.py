"""Loss and learning rate by step are those with which Keras trained."""

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from tests.helpers import Recorded, X, batches, dense_model, fit, record

pytestmark = pytest.mark.slow


class Losses(keras.callbacks.Callback):
    """Notes the loss of each batch. With one batch per epoch, Keras' running mean equals it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["loss"])


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.nightly), 2])
def test_curves_are_those_of_training(run_dir, every: int):
    model = dense_model(
        keras.layers.Dense(4, activity_regularizer="l2", kernel_regularizer="l2"),
        keras.layers.Dropout(0.5, seed=3),
        keras.layers.Dense(2),
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    model.compile(xtf.PathAdamW(schedule), loss="mse", run_eagerly=every == 1)
    logger, losses = xtf.PathLogger(run_dir, every=every, verbose=False), Losses()
    y = np.ones((len(X), 2), "float32")
    weights = np.linspace(0, 2, len(X), dtype="float32")
    fit(model, logger.tap(batches(X, y, weights, size=len(X))), logger, losses, epochs=3)
    curves = xtf.open_run(run_dir).curves(progress=False)
    np.testing.assert_allclose(curves.loss, losses.seen, rtol=1e-5)  # float32 sums in another order
    np.testing.assert_allclose(curves.learning_rate, [0.1, 0.05, 0.025], rtol=1e-6)
    assert curves.step.values.tolist() == [0, 1, 2]


def test_layers_called_like_variables_of_ledgers_have_nodes(tmp_path):
    layers = [keras.layers.Dense(2, name="residual"), keras.layers.Dense(2, name="input")]
    recorded: Recorded = record(tmp_path / "run", layers, epochs=1)
    tree = recorded.open().attribute(X[:2], axes=("parameter",), progress=False)
    tree.explaind.check()
    shapes = {
        tuple(n.path.split("/")[-2:]): n.dataset.data.shape for n in tree.subtree if n.data_vars if n.level
    }
    assert shapes["residual_", "kernel"] == (2, 2, 3, 2)
    assert shapes["input_", "bias"] == (2, 2, 2)
