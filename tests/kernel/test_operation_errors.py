"""Derivatives of single operations, compared with differences."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives.operation_errors import derivative_errors
from explaind_tf.kernel.functions import Block, PureModel, StepPath
from explaind_tf.kernel.operations import mean_slopes, reverse_mode

INPUTS, HIDDEN, OUTPUTS = 3, 7, 2
SIZE = INPUTS * HIDDEN + HIDDEN * OUTPUTS


def compare(function, *, step=0.3):
    """Compare the derivatives of ``function`` between two matrix products."""

    def measure(variables, constants, inputs, targets):
        first, second = variables
        return function(inputs[0] @ first, second)

    model = PureModel(
        measure=measure,
        losses=None,
        loss_scales=None,
        regularizer=None,
        trained=(
            tf.TensorSpec((INPUTS, HIDDEN), tf.float64),
            tf.TensorSpec((HIDDEN, OUTPUTS), tf.float64),
        ),
        state=(),
        constants=(),
        inputs=(tf.TensorSpec((None, INPUTS), tf.float64),),
        measure_targets=(),
        loss_targets=(),
    )
    rng = np.random.default_rng(0)
    start, displacement = rng.normal(size=SIZE), step * rng.normal(size=SIZE)
    path = StepPath(start, start + displacement, displacement, [])
    return derivative_errors(model, path, Block([rng.normal(size=(1, INPUTS))], []), 1)


def scaled(factor, gradient):
    return lambda operation, upstream: [factor * gradient(operation, upstream)]


@pytest.mark.parametrize(
    "function",
    [
        lambda x, w: tf.nn.softplus(x) @ w,
        lambda x, w: tf.nn.relu(x) @ w,
        lambda x, w: tf.gather(w, [5, 1, 5]) * tf.reduce_max(x),
        lambda x, w: tf.abs(tf.signal.fft(tf.cast(x, tf.complex128))) @ w,
    ],
    ids=["smooth", "kinked", "gathered", "complex"],
)
def test_right_derivatives_have_no_error(function):
    errors = compare(function)
    assert abs(errors.whole.error) < 1e-3
    assert errors.whole.relative < 1e-3
    assert len(errors.operations) >= 3
    assert all(own.found.relative < 1e-3 for own in errors.operations)


def test_the_errors_of_operations_add_up_to_that_of_the_whole(monkeypatch):
    gradients = {
        "Softplus": scaled(0.7, lambda own, upstream: upstream * tf.sigmoid(own.inputs[0])),
        "Sin": scaled(1.1, lambda own, upstream: upstream * tf.cos(own.inputs[0])),
    }
    for name, gradient in gradients.items():
        monkeypatch.setitem(reverse_mode._GRADIENTS, name, gradient)
    errors = compare(lambda x, w: tf.sin(tf.nn.softplus(x) @ tf.tanh(w)))
    wrong = {own.type: own.found for own in errors.operations if own.found.relative > 1e-2}
    assert {name: round(found.relative, 3) for name, found in wrong.items()} == {
        "Softplus": 0.3,
        "Sin": pytest.approx(0.1 / 1.1, abs=1e-3),
    }
    assert all(found.is_certain for found in wrong.values())
    assert errors.whole.error == pytest.approx(sum(own.found.error for own in errors.operations), rel=1e-3)


def test_wrong_mean_slopes_are_found(monkeypatch):
    right = mean_slopes._MEAN_SLOPES["Relu"]

    class Wrong:
        at_node, over_piece = right.at_node, right.over_piece

        def pull_back(self, operation, slope):
            return right.pull_back(operation, [0.5 * slope[0]])

    monkeypatch.setitem(mean_slopes._MEAN_SLOPES, "Relu", Wrong())
    errors = compare(lambda x, w: tf.nn.relu(x) @ w)
    (wrong,) = [own for own in errors.operations if own.found.relative > 1e-2]
    assert (wrong.type, wrong.found.relative) == ("Relu", pytest.approx(0.5))


def test_zero_in_place_of_a_derivative_is_found():
    """TensorFlow says that its conversion of colours has a derivative of zero."""
    errors = compare(lambda x, w: tf.image.hsv_to_rgb(tf.sigmoid(x[:, :3])) @ w[:3])
    (wrong,) = [own for own in errors.operations if own.found.relative > 1e-2]
    assert (wrong.type, wrong.found.relative) == ("HSVToRGB", pytest.approx(1.0))
    assert wrong.found.is_certain


@pytest.mark.parametrize(
    ("function", "left_out"),
    [
        (lambda x, w: tf.round(300 * x) @ w, {"Round"}),
        (lambda x, w: tf.where(tf.sin(300 * x) > 0, x + 5, x) @ w, {"Greater", "SelectV2"}),
        (lambda x, w: tf.gather(w, tf.argmax(tf.sin(300 * x), axis=1)), {"ArgMax", "GatherV2"}),
    ],
)
def test_operations_that_jump_are_left_out(function, left_out):
    errors = compare(function)
    assert errors.whole.relative > 0.5
    assert {name.split("/")[-1].split("_")[0] for name in errors.left_out} == left_out
    assert all(own.found.relative < 1e-2 for own in errors.operations)


def test_loops_are_left_out():
    def looped(x, w):
        return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, tf.tanh(y)), (0, x))[1] @ w

    errors = compare(looped)
    assert len(errors.left_out) == 1
    assert abs(errors.whole.error) < 1e-3
    assert {own.type for own in errors.operations} >= {"MatMul"}
