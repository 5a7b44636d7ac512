"""Rows of several nodes by every rule, compared with a loop over inputs, outputs and nodes, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Block, PureModel, StepPath
from explaind_tf.kernel.path_integrals import integrate_directions
from explaind_tf.kernel.quadrature.nodes import Quadrature
from tests.nightly import sweep

pytestmark = pytest.mark.slow

SIDE, CHANNELS, TOKENS, OUTPUTS = 6, 2, 5, 2


def _pooled(images):
    return tf.reduce_mean(tf.sin(images), axis=(1, 2))


def _convolution(variables, x):
    return _pooled(tf.nn.conv2d(x, variables[0], 1, "SAME"))


def _dilated(variables, x):
    # As in Keras: images are cut into interlaced ones, of which the first ones of all examples come first.
    return _pooled(tf.nn.convolution(x, variables[0], 1, "VALID", dilations=2))


def _transposed(variables, x):
    # The number of images is known at run time only, as in Keras.
    shape = [tf.shape(x)[0], 2 * SIDE, 2 * SIDE, OUTPUTS]
    images = tf.nn.conv2d_transpose(x, variables[0], shape, 2, "SAME")
    return _pooled(tf.ensure_shape(images, (None, *shape[1:])))


def _normalised(variables, x):
    mean, variance, scale, offset = variables
    return _pooled(tf.nn.batch_normalization(x, mean, tf.exp(variance), offset, scale, 1e-3)[..., :OUTPUTS])


def _broadcast(variables, x):
    scale, shift, divisor = variables
    return _pooled((x * scale - shift) / tf.exp(divisor))


def _positions(variables, x):
    weight, bias = variables
    rows = tf.reshape(x, (-1, SIDE * SIDE, CHANNELS))
    return tf.reduce_mean(tf.tanh(tf.matmul(rows, weight) + bias), axis=1)


def _tied(variables, x):
    (weight,) = variables
    return tf.tanh(tf.reshape(x, (-1, SIDE * SIDE, CHANNELS))[:, 0] @ weight) @ tf.transpose(weight)


def _einsum(variables, x):
    return _pooled(tf.einsum("bhwc,cdk->bhdk", x, variables[0]))


def _lookup(variables, x):
    tokens = tf.cast(tf.abs(x[:, 0, :3, 0]) * 100, tf.int32) % TOKENS
    return tf.reduce_sum(tf.sin(tf.gather(variables[0], tokens)), axis=1)


MODELS = {
    "convolution": (_convolution, [(3, 3, CHANNELS, OUTPUTS)]),
    "dilated convolution": (_dilated, [(2, 2, CHANNELS, OUTPUTS)]),
    "transposed convolution": (_transposed, [(3, 3, OUTPUTS, CHANNELS)]),
    "BatchNorm in inference": (_normalised, [(CHANNELS,)] * 4),
    "broadcast": (_broadcast, [(CHANNELS,), (SIDE, 1), (CHANNELS,)]),
    "positions": (_positions, [(CHANNELS, OUTPUTS), (OUTPUTS,)]),
    "tied weights": (_tied, [(CHANNELS, 4)]),
    "einsum": (_einsum, [(CHANNELS, 3, OUTPUTS)]),
    "lookup": (_lookup, [(TOKENS, OUTPUTS)]),
}


def _model(call, shapes) -> PureModel:
    return PureModel(
        measure=lambda variables, constants, inputs, targets: call(variables, inputs[0]),
        losses=lambda variables, constants, inputs, *_: tf.reduce_sum(call(variables, inputs[0]), axis=1),
        loss_scales=lambda *_: tf.ones(1, tf.float64),
        regularizer=None,
        trained=tuple(tf.TensorSpec(shape, tf.float64) for shape in shapes),
        state=(),
        constants=(),
        inputs=(tf.TensorSpec((None, SIDE, SIDE, CHANNELS), tf.float64),),
        measure_targets=(),
        loss_targets=(),
        loss_weights=(),
    )


@pytest.mark.parametrize("name", sweep(MODELS, core=("positions",)))
def test_rows_products_and_integrals_equal_those_of_a_loop(name):
    call, shapes = MODELS[name]
    rng = np.random.default_rng(0)
    model = _model(call, shapes)
    size = sum(int(np.prod(shape)) for shape in shapes)
    start, displacement = rng.normal(size=(2, size))
    path = StepPath(start, start + displacement, displacement, [])
    block = Block([rng.normal(size=(4, SIDE, SIDE, CHANNELS))], [])
    # Inputs differ in their number of nodes, and share some of them.
    owners = np.array([0, 1, 1, 1, 2, 2, 3, 3])
    nodes = np.array([0.5, 0.1, 0.5, 0.7, 0.5, 0.9, 0.1, 0.7])
    quadrature = Quadrature.of_pairs(owners, nodes, rng.uniform(0.2, 1, len(nodes)), 4)
    derivatives = Derivatives(model)
    expected = derivatives.measurement.path_rows(path, quadrature, block, route="loop").numpy()
    assert np.abs(expected).max() > 1e-3
    directions = rng.normal(size=(3, size))
    integrals = integrate_directions(path, directions, derivatives.measurement, block, quadrature)
    np.testing.assert_allclose(integrals, np.einsum("boz,kz->kbo", expected, directions), atol=1e-11)
    for stacked in (1, 2, 10):
        rows = derivatives.measurement.path_rows(path, quadrature, block, route="rules", stacked=stacked)
        np.testing.assert_allclose(rows, expected, atol=1e-12)
        products = derivatives.measurement.path_products(
            path, quadrature, directions, block, stacked=stacked
        ).numpy()
        np.testing.assert_allclose(
            products.sum(axis=-1), np.einsum("boz,kz->bok", expected, directions), atol=1e-11
        )


def test_the_model_is_traced_once():
    # What is traced a second time only tells shapes, but takes as long: half a minute for a large model.
    traced = []

    def counted(variables, x):
        traced.append(x)
        return _normalised(variables, x)

    model = _model(counted, MODELS["BatchNorm in inference"][1])
    measurement = Derivatives(model).measurement
    assert measurement.width == OUTPUTS
    before = len(traced)
    point, images = np.ones(model.point_size), np.ones((2, SIDE, SIDE, CHANNELS))
    measurement.path_rows(
        StepPath(point, point + 1, point, []), Quadrature.same(2), Block([images], []), route="rules"
    )
    assert len(traced) == before + 1
