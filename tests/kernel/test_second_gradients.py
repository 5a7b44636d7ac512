"""Gradients of gradients that TensorFlow lacks: by the gradient that was handed on, and by the values."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.operations.reverse_mode import gradients

_RNG = np.random.default_rng(0)


CASES = pytest.mark.parametrize(
    ("function", "dtype", "step", "tolerance"),
    [
        (tf.nn.softsign, "float64", 1e-5, 1e-7),
        # TensorFlow has it in float32 only.
        (
            lambda x: tf.nn.local_response_normalization(x, 1, 1.0, 0.7, 0.6),
            "float32",
            1e-2,
            2e-3,
        ),
    ],
    ids=["softsign", "local response normalisation"],
)


@CASES
def test_a_hessian_product_is_that_of_differences(
    function: Callable[[tf.Tensor], tf.Tensor], dtype: str, step: float, tolerance: float
):
    x, weights, direction = (_RNG.normal(size=(2, 1, 1, 6)).astype(dtype) for _ in range(3))

    def gradient(x: tf.Tensor) -> tf.Tensor:
        return gradients(tf.reduce_sum(function(x) ** 2 * weights), [x])[0]

    @tf.function
    def product(x: tf.Tensor) -> tf.Tensor:
        return gradients(gradient(x), [x], direction)[0]

    compiled = tf.function(gradient)
    ahead, behind = (compiled(tf.constant(x + sign * step * direction)).numpy() for sign in (1, -1))
    expected = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(product(tf.constant(x)), expected, rtol=0, atol=tolerance)
    assert np.abs(expected).max() > 0.1


@CASES
def test_a_jvp_is_that_of_differences(
    function: Callable[[tf.Tensor], tf.Tensor], dtype: str, step: float, tolerance: float
):
    x, direction = (_RNG.normal(size=(2, 1, 1, 6)).astype(dtype) for _ in range(2))

    @tf.function
    def product(x: tf.Tensor) -> tf.Tensor:
        upstream = tf.zeros_like(x)
        pulled = gradients(function(x), [x], upstream)[0]
        return gradients(pulled, [upstream], direction)[0]

    ahead, behind = (function(tf.constant(x + sign * step * direction)).numpy() for sign in (1, -1))
    np.testing.assert_allclose(product(tf.constant(x)), (ahead - behind) / (2 * step), rtol=0, atol=tolerance)
