"""JVPs of operations whose VJP has no gradient in TensorFlow."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives.compiled import jvp_many
from explaind_tf.kernel.points import Point

SIZE = 48
BOXES = tf.constant([[0.1, 0.2, 0.9, 0.8], [0.0, 0.1, 0.7, 1.0]])


def image(z):
    return tf.reshape(z, (1, 4, 4, 3))


def dilated(z):
    filters = tf.reshape(z[:12], (2, 2, 3))
    return tf.nn.dilation2d(image(z), filters, [1, 1, 1, 1], "VALID", "NHWC", [1, 1, 1, 1])


def looped(z):
    """A loop whose body has no second derivative either."""
    return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, tf.sin(dilated_same(y))), (0, image(z)))[1]


def dilated_same(x):
    return tf.nn.dilation2d(x, tf.ones((2, 2, 3), x.dtype), [1, 1, 1, 1], "SAME", "NHWC", [1, 1, 1, 1])


def sparsely_added(z):
    """TensorFlow says that the second derivative of this sum is zero."""
    places = tf.constant([[i] for i in range(24)], tf.int64)
    parts = (tf.SparseTensor(places, part, [24]) for part in (tf.sin(z[:24]), z[24:] ** 2))
    return tf.sparse.add(*parts).values


def sine_by_runtime(z):
    """A sine whose gradient TensorFlow's runtime makes, as in the loops of a loaded CTC loss."""
    sine = tf.function(tf.sin, input_signature=[tf.TensorSpec((SIZE,))], autograph=False)
    called = sine.get_concrete_function()
    called.add_to_graph(tf.compat.v1.get_default_graph())
    made = tf.sin(z)
    made.op._gradient_function = lambda operation, upstream: tf.raw_ops.SymbolicGradient(
        input=[operation.inputs[0], upstream], Tout=[tf.float32], f=called
    )
    return made


FUNCTIONS = {
    "Dilation2D": dilated,
    "CropAndResize by images": lambda z: tf.image.crop_and_resize(image(z), BOXES, [0, 0], [3, 3]),
    "CropAndResize by boxes": lambda z: tf.image.crop_and_resize(
        image(tf.sin(tf.range(48.0))), BOXES + 0.1 * tf.reshape(z[:8], (2, 4)), [0, 0], [3, 3]
    ),
    "MaxPoolWithArgmax": lambda z: tf.nn.max_pool_with_argmax(image(z), 2, 2, "VALID")[0],
    "SparseSegmentSum": lambda z: tf.sparse.segment_sum(tf.reshape(z, (12, 4)), [0, 3, 3, 7], [0, 0, 1, 1]),
    "SparseSegmentMean": lambda z: tf.sparse.segment_mean(tf.reshape(z, (12, 4)), [0, 3, 3, 7], [0, 0, 1, 1]),
    "ResizeNearestNeighbor": lambda z: tf.image.resize(image(z), [7, 5], method="nearest"),
    "SparseAdd": sparsely_added,
    "in a loop": looped,
}


@pytest.mark.parametrize("count", [2, None])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_jvps_are_those_of_differences(name, count):
    function = FUNCTIONS[name]

    @tf.function(
        input_signature=[tf.TensorSpec((SIZE,)), tf.TensorSpec((count, SIZE))],
        autograph=False,
    )
    def derivatives(point, directions):
        return jvp_many(tf.sin(function(point)), Point.of(point), directions)

    rng = np.random.default_rng(3)
    point = rng.normal(size=SIZE).astype("float32")
    directions = rng.normal(size=(2, SIZE)).astype("float32")
    found = derivatives(point, directions)
    width = 2.0**-9
    expected = [
        (tf.sin(function(tf.constant(point + width * d))) - tf.sin(function(tf.constant(point - width * d))))
        / (2 * width)
        for d in directions
    ]
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=3e-3 * np.abs(expected).max())


def test_gradients_of_the_runtime_are_not_trusted():
    point = tf.TensorSpec((SIZE,))
    derivatives = tf.function(
        lambda z: jvp_many(sine_by_runtime(z), Point.of(z), z[None]), input_signature=[point], autograph=False
    )
    with pytest.raises(LookupError, match="SymbolicGradient"):
        derivatives.get_concrete_function()
