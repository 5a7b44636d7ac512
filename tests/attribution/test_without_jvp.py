"""Ledgers of models in which an operation's VJP has no gradient in TensorFlow, so the operation has no JVP."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from tests.helpers import fit, initialised
from tests.nightly import sweep

pytestmark = pytest.mark.slow


class Dilation(keras.layers.Layer):
    """The largest sum of an image and a filter, in windows."""

    def build(self, shape):
        self.filters = self.add_weight(shape=(2, 2, shape[-1]), name="filters")

    def call(self, x):
        ones = [1, 1, 1, 1]
        return tf.nn.dilation2d(x, self.filters, ones, "VALID", "NHWC", ones)


class Pooling(keras.layers.Layer):
    """Max-pooling that also knows where the largest elements are."""

    def call(self, x):
        return tf.nn.max_pool_with_argmax(x, 2, 2, "VALID")[0]


@pytest.fixture(name="problem", scope="module")
def _problem(tmp_path_factory):
    layers = keras.layers
    model = initialised(
        keras.Sequential(
            [
                keras.Input((5, 5, 1)),
                layers.Conv2D(2, 2, name="conv"),
                Dilation(name="dilation"),
                Pooling(name="pooling"),
                layers.Flatten(),
                layers.Dense(2, name="logits"),
            ]
        )
    )
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 5, 5, 1)).astype("float32")
    y = rng.normal(size=(8, 2)).astype("float32")
    model.compile(xtf.PathAdamW(0.01), loss="mse")
    logger = xtf.PathLogger(tmp_path_factory.mktemp("runs") / "run", verbose=False)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    fit(model, logger.tap(data), logger, epochs=2)
    return xtf.open_run(logger.run_dir), x[:3]


AXES = {"-".join(axes): axes for axes in ((), ("layer", "step"), ("sample",), ("parameter",))}


@pytest.mark.parametrize("name", sweep(AXES, core=("layer-step", "sample")))
def test_ledgers_balance(problem, name):
    run, inputs = problem
    ledger = run.attribute(inputs, axes=AXES[name], progress=False)
    ledger.explaind.check()
    assert float(ledger.movement.min()) > 1e-3
