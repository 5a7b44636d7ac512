"""A row of −∞ has no influence on the derivatives of others."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel.derivatives.compiled import jvp_many, vjp
from explaind_tf.kernel.points import Point
from explaind_tf.runs.graphs.loaded import InlinedFunction

SHAPE = (3, 4)
MASK = tf.constant([[0.0, 0.0, -np.inf, 0.0], [-np.inf] * 4, [0.0] * 4], tf.float64)
SPEC = tf.TensorSpec((12,), tf.float64)
POINT, DIRECTION = np.random.default_rng(0).normal(size=(2, 12))


def directly(point):
    found = tf.reduce_logsumexp(tf.reshape(point, SHAPE) + MASK, axis=-1)
    return tf.where(tf.math.is_finite(found), found, 0.0)


def in_a_loop(point):
    return tf.while_loop(
        lambda i, _: i < 2, lambda i, a: (i + 1, a * tf.reduce_sum(directly(a))), (0, point)
    )[1]


@pytest.mark.parametrize("function", [directly, in_a_loop])
def test_derivatives_are_finite_and_right(function):
    traced = tf.function(lambda point: [function(point)], input_signature=[SPEC], autograph=False)
    seen = InlinedFunction.of(traced.get_concrete_function()).seen_through()

    @tf.function(autograph=False)
    def products(point, way):
        outputs = seen(point)[0]
        return outputs, jvp_many(outputs, Point.of(point), way[None])[0], vjp(outputs, Point.of(point), None)

    value, jvp, back = products(tf.constant(POINT), tf.constant(DIRECTION))
    np.testing.assert_allclose(value, function(tf.constant(POINT)), rtol=1e-14)
    ends = [function(tf.constant(POINT + step * DIRECTION)).numpy() for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(jvp, np.subtract(*ends) / 2e-5, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(np.dot(back, DIRECTION), np.sum(jvp), rtol=1e-10)


def test_the_value_of_an_empty_sum_stays():
    traced = tf.function(lambda point: [tf.reduce_logsumexp(point)], input_signature=[SPEC], autograph=False)
    seen = tf.function(InlinedFunction.of(traced.get_concrete_function()).seen_through(), autograph=False)
    assert seen(tf.fill((12,), tf.constant(-np.inf, tf.float64)))[0] == -np.inf
