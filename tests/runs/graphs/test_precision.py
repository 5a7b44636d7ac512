"""A graph in another precision computes the same function of other numbers."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.runs.graphs.loaded import InlinedFunction
from explaind_tf.runs.graphs.precision import in_precision
from tests.nightly import sweep

X = np.random.default_rng(0).normal(size=(4, 6, 6, 3)).astype("float32")
KERNEL = np.random.default_rng(1).normal(size=(3, 3, 3, 2)).astype("float32")

Body = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


def inlined(body: Body, dtype: tf.DType = tf.float32) -> InlinedFunction:
    """Return a function of a kernel and of samples in float32."""
    specs = [tf.TensorSpec(KERNEL.shape, dtype), tf.TensorSpec((None, *X.shape[1:]), tf.float32)]
    traced = tf.function(lambda k, x: [body(k, x)], input_signature=specs, autograph=False)
    return InlinedFunction.of(traced.get_concrete_function())


def values(function: InlinedFunction, dtype: tf.DType) -> np.ndarray:
    (found,) = tf.function(function, autograph=False)(tf.cast(KERNEL, dtype), tf.constant(X))
    return found.numpy()


def convolution(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.nn.max_pool2d(
        tf.nn.relu(tf.nn.conv2d(tf.cast(x, kernel.dtype), kernel, 1, "SAME")), 2, 2, "SAME"
    )


def in_low_precision(dtype: tf.DType) -> Body:
    def body(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return tf.cast(convolution(tf.cast(kernel, dtype), x), tf.float32)

    return body


def loop(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    start = tf.zeros_like(x, kernel.dtype)
    _, found = tf.while_loop(
        lambda i, _: i < 3,
        lambda i, h: (i + 1, tf.tanh(h + tf.cast(x, h.dtype) * tf.reduce_mean(kernel))),
        (0, start),
    )
    return found


def branch(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.cond(tf.reduce_sum(kernel) > 0, lambda: convolution(kernel, x), lambda: -convolution(kernel, x))


def without_a_double_kernel(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    normed, *_ = tf.raw_ops.FusedBatchNormV3(
        x=convolution(kernel, x), scale=[1.0, 2.0], offset=[0.0, 1.0], mean=[], variance=[], is_training=True
    )
    return normed


def always_float(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.image.resize(convolution(kernel, x), (5, 5)) + tf.reduce_sum(kernel)


def spectrum(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    turned = tf.signal.fft(tf.complex(convolution(kernel, x), tf.reduce_sum(kernel))) * 1j
    return tf.concat([tf.math.real(turned), tf.abs(tf.signal.rfft(convolution(kernel, x), [4]))], axis=-1)


BODIES: dict[str, Body] = {
    "convolution": convolution,
    "loop": loop,
    "branch": branch,
    "spectrum": spectrum,
    "operation without a kernel for float64": without_a_double_kernel,
    "operation that returns float32": always_float,
}


@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16], ids=lambda dtype: dtype.name)
def test_the_twin_of_a_low_precision_graph_is_the_float32_graph(dtype):
    low = inlined(in_low_precision(dtype))
    assert dtype in low.computes_in
    twin = low.in_precision(tf.float32, slice(1, None))
    assert twin.computes_in == {tf.float32}
    right = values(inlined(convolution), tf.float32)
    np.testing.assert_array_equal(values(twin, tf.float32), right)
    assert not np.array_equal(values(low, tf.float32), right)


@pytest.mark.parametrize("name", sweep(BODIES, core=("loop", "spectrum", "operation that returns float32")))
def test_graphs_in_float64(name):
    found = values(inlined(BODIES[name]).in_precision(tf.float64, slice(1, None)), tf.float64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, values(inlined(BODIES[name]), tf.float32), atol=2e-5)


def test_float64_is_what_the_same_code_computes_in_float64():
    found = values(inlined(convolution).in_precision(tf.float64, slice(1, None)), tf.float64)
    np.testing.assert_allclose(found, values(inlined(convolution, tf.float64), tf.float64), rtol=1e-14)


def test_complex_numbers_are_those_of_two_float64():
    found = values(inlined(spectrum).in_precision(tf.float64, slice(1, None)), tf.float64)
    with_double = inlined(lambda kernel, x: spectrum(kernel, tf.cast(x, tf.float64)), tf.float64)
    np.testing.assert_allclose(found, values(with_double, tf.float64), rtol=1e-13, atol=1e-14)


def test_random_numbers_stay_those_that_were_drawn():
    def noisy(kernel: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        return x + tf.random.stateless_uniform(tf.shape(x), (1, 2)) + tf.reduce_sum(kernel)

    found = values(inlined(noisy).in_precision(tf.float64, slice(1, None)), tf.float64)
    np.testing.assert_allclose(found, values(inlined(noisy), tf.float32), atol=1e-5)


def test_a_twin_has_a_digest_of_its_own():
    own = inlined(convolution)
    twin = own.in_precision(tf.float64, slice(1, None))
    assert twin.digest is not None and twin.digest != own.digest
    assert twin.digest == inlined(convolution).in_precision(tf.float64, slice(1, None)).digest


def test_constants_keep_their_values():
    graph = tf.Graph()
    with graph.as_default():
        tf.constant([0.1, 3.0], name="c")
    (node,) = in_precision(graph.as_graph_def(), tf.float64).graph_def.node
    np.testing.assert_array_equal(
        tf.make_ndarray(node.attr["value"].tensor), np.float64(np.float32([0.1, 3.0]))
    )
