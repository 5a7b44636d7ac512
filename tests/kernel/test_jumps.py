"""Jumps: found where they are, with their height, and not where the integrand only has kinks or noise."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from explaind_tf.kernel.operations.jumps import may_jump
from tests.kernel.integrals import Integrands


class _Stairs(Integrands):
    """For each input a smooth function, with a jump of a height at a place; both may be zero."""

    def __init__(self, places, heights):
        super().__init__(len(places))
        self._places, self._heights = np.asarray(places), np.asarray(heights)

    def values(self, nodes, owners, pieces):
        return 2 * np.cos(2 * nodes)

    def measure(self, nodes, owners, pieces=None):
        return (np.sin(2 * nodes) + self._heights[owners] * (nodes > self._places[owners]))[:, None]


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.05, 3)), min_size=1, max_size=4))
def test_a_jump_is_found_with_its_height(jumps):
    places, heights = zip(*jumps, strict=True)
    stairs = _Stairs(places, heights)
    _, error = stairs.integrate(1e-4, may_jump=True)
    np.testing.assert_allclose(stairs.jumps[:, 0], heights, atol=1e-3)
    np.testing.assert_allclose(error, stairs.jumps[:, 0], atol=1e-4)


def test_a_jump_costs_nodes_only_where_it_is():
    stairs = _Stairs([0.37, 0.5], [1.0, 0.0])
    quadrature, _ = stairs.integrate(1e-4, may_jump=True)
    counts = np.diff(quadrature.splits)
    assert counts[0] <= 80
    assert stairs.jumps[1] == 0


def test_without_the_possibility_of_jumps_it_stays_an_error():
    stairs = _Stairs([0.37], [1.0])
    _, error = stairs.integrate(1e-4)
    assert abs(error[0] - 1) < 1e-3
    assert stairs.jumps[0] == 0


class _Kinks(Integrands):
    """The function max(t − place, 0), which has a kink and no jump."""

    def __init__(self, places):
        super().__init__(len(places))
        self._places = np.asarray(places)

    def values(self, nodes, owners, pieces):
        return (nodes > self._places[owners]).astype(float)

    def measure(self, nodes, owners, pieces=None):
        return np.maximum(nodes - self._places[owners], 0)[:, None]


@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6))
def test_a_kink_is_no_jump(places):
    kinks = _Kinks(places)
    _, error = kinks.integrate(1e-5, may_jump=True)
    # Only at the very end of a step, where its slope is seen nowhere else, may a kink be taken for a small jump.
    assert np.abs(kinks.jumps).max() <= 3.0**-6
    np.testing.assert_allclose(error, kinks.jumps[:, 0], atol=1e-5 * (1 + 1e-12))


def _in_loop(x):
    return tf.while_loop(lambda i, _: i < 2, lambda i, a: (i + 1, a + tf.round(a)), [0, x])[1]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * 2 + tf.round(x), True),
        (lambda x: tf.gather(x, tf.argmax(x)), True),
        (lambda x: tf.where(x > 0, x, 0.5), True),
        (lambda x: tf.cast(tf.cast(x, tf.int32), x.dtype), True),
        (_in_loop, True),
        (lambda x: tf.nn.relu(x) + tf.reduce_max(x), False),
        (lambda x: x * tf.cast(tf.shape(x)[0] > 1, x.dtype), False),
        (lambda x: tf.nn.softmax(x) + tf.round(tf.ones(4, x.dtype)), False),
    ],
)
def test_what_jumps_is_read_from_the_graph(function, expected):
    traced = tf.function(function, autograph=False).get_concrete_function(tf.TensorSpec((4,), tf.float64))
    assert may_jump(traced.outputs[0], traced.inputs[0]) is expected
