"""Losses obey custom gradients and stop_gradient, as training did; predictions are differentiated as functions."""

import ast
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

import explaind_tf as xtf
from explaind_tf import constants as names
from explaind_tf.measurements import Measurement
from tests.helpers import LABELS, X, batches, fit, initialised
from tests.nightly import sweep

pytestmark = pytest.mark.slow


class Call(keras.layers.Layer):
    """A layer without weights."""

    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, x):
        return self._function(x)


@tf.custom_gradient
def reversed_gradient(x):
    return tf.identity(x), lambda upstream: -0.3 * upstream


@tf.custom_gradient
def hard_sign(x):
    return tf.sign(x), lambda upstream: upstream * tf.cast(tf.abs(x) < 1, x.dtype)


@tf.custom_gradient
def of_two(x):
    return (2.0 * x, tf.tanh(x)), lambda a, b: 2.0 * a + 0.1 * b


def straight_through(function):
    return lambda x: x + tf.stop_gradient(function(x) - x)


def one_hot_of_the_largest(x):
    soft = tf.nn.softmax(x)
    return soft + tf.stop_gradient(tf.one_hot(tf.argmax(soft, axis=-1), soft.shape[-1]) - soft)


class Codebook(keras.layers.Layer):
    """Vector quantisation with the straight-through estimator."""

    def build(self, shape):
        self.codes = self.add_weight(shape=(5, shape[-1]), initializer="random_normal", name="codes")

    def call(self, x):
        codes = tf.convert_to_tensor(self.codes)
        nearest = tf.gather(codes, tf.argmin(tf.reduce_sum((x[:, None] - codes) ** 2, axis=-1), axis=-1))
        self.add_loss(tf.reduce_mean((tf.stop_gradient(x) - nearest) ** 2))
        return x + tf.stop_gradient(nearest - x)


class Quantised(keras.layers.Layer):
    """A matrix product with rounded weights."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        kernel = tf.convert_to_tensor(self.kernel)
        return x @ (kernel + tf.stop_gradient(tf.round(kernel * 8) / 8 - kernel))


class QuantisedWeights(keras.layers.Layer):
    """A matrix product with weights that are quantised in their own range, or in that of their channel."""

    def __init__(self, axis=None):
        super().__init__()
        self._axis = axis

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        unused = tf.ones([] if self._axis is None else self.kernel.shape[self._axis : self._axis + 1])
        return x @ tf.quantization.quantize_and_dequantize_v2(
            tf.convert_to_tensor(self.kernel), -unused, unused, num_bits=4, range_given=False, axis=self._axis
        )


class LearntRange(keras.layers.Layer):
    """Quantisation between bounds that are trained, one pair for each channel."""

    def build(self, shape):
        self.low = self.add_weight(
            shape=shape[-1:], initializer=keras.initializers.Constant(-0.4), name="low"
        )
        self.high = self.add_weight(
            shape=shape[-1:], initializer=keras.initializers.Constant(0.4), name="high"
        )

    def call(self, x):
        quantised = tf.quantization.fake_quant_with_min_max_vars_per_channel
        return quantised(x, tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high), num_bits=4)


class Recomputed(keras.layers.Layer):
    """A dense layer whose activations are computed again in the backward pass."""

    def build(self, shape):
        self.inner = keras.layers.Dense(4, activation="tanh")
        self.inner.build(shape)

    def call(self, x):
        return tf.recompute_grad(lambda own: self.inner(own))(x)


CASES = {
    "swish": lambda: [keras.layers.Activation("swish")],
    "reversal": lambda: [Call(reversed_gradient)],
    "reversal by stops": lambda: [Call(lambda x: 2.0 * tf.stop_gradient(x) - x)],
    "gate on detached features": lambda: [Call(lambda x: x * tf.sigmoid(tf.stop_gradient(x)))],
    "two results": lambda: [Call(lambda x: tf.add_n(of_two(x)))],
    "sign, custom gradient": lambda: [Call(hard_sign)],
    "sign, straight through": lambda: [Call(straight_through(tf.sign))],
    "rounded, straight through": lambda: [Call(straight_through(lambda x: tf.round(4 * x) / 4))],
    "the largest, straight through": lambda: [Call(one_hot_of_the_largest)],
    "codebook": lambda: [Codebook()],
    "rounded weights": lambda: [Quantised()],
    "quantised": lambda: [Call(lambda x: tf.quantization.fake_quant_with_min_max_args(x, -2, 2, num_bits=5))],
    "quantised weights": lambda: [QuantisedWeights()],
    "quantised channels": lambda: [QuantisedWeights(axis=1)],
    "quantised in a learnt range": lambda: [LearntRange()],
    "recomputed": lambda: [Recomputed()],
}


def trained(run_dir, layers):
    keras.utils.set_random_seed(0)
    dense = [keras.layers.Dense(6), *layers, keras.layers.Dense(2)]
    model = initialised(keras.Sequential([keras.Input(X.shape[1:]), *dense]))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.03), loss=loss)
    logger = xtf.PathLogger(run_dir, verbose=False)
    fit(model, logger.tap(batches(X, LABELS)), logger, epochs=2)
    return xtf.open_run(run_dir)


# tests/cli/test_cli_processes.py asks about a reversal in a process of its own, every time.
# `test_jumps_are_told_apart_from_what_moved_the_weights` has a gradient that is stopped.
@pytest.mark.parametrize("name", sweep(CASES))
def test_it_balances(name, tmp_path):
    run = trained(tmp_path / "run", CASES[name]())
    run.verify(progress=False)
    whole = run.attribute(X[:4], tolerance=1e-4, progress=False)
    whole.explaind.check()
    split = run.attribute(X[:4], axes=("sample",), tolerance=1e-4, progress=False)
    split.explaind.check()
    data = split.explaind.total("data") + split.explaind.total("rounding")
    np.testing.assert_allclose(data, whole.data, atol=2e-4 * float(whole.movement.max()))


@pytest.mark.nightly
def test_a_gradient_that_keras_computes_beside_the_loss(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 12, 5)).astype("float32"), rng.integers(1, 6, (8, 4)).astype("int32")
    model = keras.Sequential(
        [keras.Input((12, 5)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(7)]
    )
    model.compile(xtf.PathAdamW(0.01), loss=keras.losses.CTC())
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    fit(model, logger.tap(batches(x, y)), logger, epochs=2)
    run = xtf.open_run(tmp_path / "run")
    run.verify(progress=False)
    run.attribute(x[:2], lambda outputs: outputs[:, 5], axes=("sample",), progress=False).explaind.check()


# `test_measurements_are_functions_too` has a loop every time.
@pytest.mark.parametrize("axis", sweep(("layer", "sample")))
def test_a_ctc_loss_as_a_measurement(tmp_path, axis):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 6, 3)).astype("float32"), rng.integers(1, 4, (8, 2)).astype("int32")
    model = keras.Sequential([keras.Input((6, 3)), keras.layers.Dense(5, activation="tanh")])
    model.compile(xtf.PathAdamW(0.03), loss=keras.losses.CTC())
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    fit(model, logger.tap(batches(x, y)), logger, epochs=2)

    def loss(outputs, labels):
        lengths = [tf.fill(tf.shape(labels)[:1], length) for length in (2, 6)]
        return keras.ops.ctc_loss(labels, outputs, *lengths)[:, None]

    run, measure = xtf.open_run(tmp_path / "run"), Measurement("CTC", loss, (y[:2],))
    ledger = run.attribute(x[:2], measure, axes=(axis,), tolerance=1e-4, progress=False)
    ledger.explaind.check()
    assert float(ledger.movement.min()) > 0


def test_what_xla_compiles_within_a_layer_may_read_constants(tmp_path):
    mean = tf.constant(
        np.linspace(0, 1, 600).reshape(100, 6), tf.float32
    )  # too large for a constant of the graph
    compiled = tf.function(lambda x: tf.tanh(x - tf.reduce_mean(mean, axis=0)), jit_compile=True)
    run = trained(tmp_path / "run", [Call(compiled)])
    run.attribute(X[:4], axes=("sample",), tolerance=1e-4, progress=False).explaind.check()


def test_measurements_are_functions_too(tmp_path):
    run = trained(tmp_path / "run", [keras.layers.Activation("tanh")])
    stopped = run.attribute(
        X[:4], lambda outputs: tf.stop_gradient(reversed_gradient(outputs)), progress=False
    )
    plain = run.attribute(X[:4], progress=False)
    stopped.explaind.check()
    np.testing.assert_allclose(stopped.data, plain.data, rtol=1e-5)
    assert names.JUMPS not in plain

    def looped(outputs):
        return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, tf.tanh(a)), (0, outputs))[1]

    found, wanted = (
        run.attribute(X[:4], measure, progress=False)
        for measure in (looped, lambda outputs: tf.tanh(tf.tanh(outputs)))
    )
    found.explaind.check()
    np.testing.assert_allclose(found.data, wanted.data, rtol=1e-5, atol=1e-7)


def test_questions_leave_the_registry_as_it_is(tmp_path):
    # Keras itself registers a gradient in fit, for the optimizer's sum over replicas.
    run = trained(tmp_path / "run", [keras.layers.ReLU(), keras.layers.Activation("softsign")])
    before = dict(ops.gradient_registry._registry)
    run.attribute(X[:4], axes=("sample",), progress=False).explaind.check()
    assert dict(ops.gradient_registry._registry) == before


def test_no_code_of_the_package_registers_a_gradient():
    package = Path(xtf.__file__).parent
    for path in package.rglob("*.py"):
        called = {
            node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
        }
        assert not called & {"RegisterGradient", "custom_gradient", "NotDifferentiable"}, path


def test_a_custom_gradient_within_a_loop_is_refused_where_it_differs(tmp_path):
    def looped(x):
        return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, reversed_gradient(a)), [0, x])[1]

    with pytest.raises(xtf.RefusedError, match=r"custom gradient within a loop"):
        trained(tmp_path / "run", [Call(looped)])


def test_an_operation_without_a_derivative_is_refused_with_its_layer(tmp_path):
    rest = Call(lambda x: x + tf.stop_gradient(tf.raw_ops.TruncateMod(x=x, y=0.1 * tf.ones_like(x))))
    with pytest.raises(xtf.RefusedError, match=r"the type TruncateMod\. TensorFlow has no derivative of it"):
        trained(tmp_path / "run", [rest])
    assert not (tmp_path / "run").exists()
    of_constants = Call(lambda x: x + tf.raw_ops.TruncateMod(x=3.0 * tf.ones(6), y=2.0 * tf.ones(6)))
    trained(tmp_path / "fine", [of_constants])


def test_jumps_are_told_apart_from_what_moved_the_weights(tmp_path):
    run = trained(tmp_path / "run", [Call(straight_through(tf.sign))])
    ledger = run.attribute(X, axes=("step",), tolerance=1e-4, progress=False)
    ledger.explaind.check()
    jumps = ledger[names.JUMPS]
    assert float(np.abs(jumps).max()) > 0
    # Signs change in few steps, and by what a unit of the last layer is worth.
    assert 0 < float((jumps != 0).mean()) < 0.5
