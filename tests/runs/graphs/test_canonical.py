"""Graphs that compute the same have one digest, whatever they are called; others have another."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.runs.graphs.loaded import InlinedFunction

ROWS = tf.TensorSpec((None, 3), tf.float32)


def digest(function, *specs):
    return InlinedFunction.of(tf.function(function, autograph=False).get_concrete_function(*specs)).digest


def dense(scale, name):
    def function(x, w):
        with tf.name_scope(name):
            return [tf.tanh(x @ w, name=name) * scale]

    return function


def loop(times, name):
    def body(i, a):
        with tf.name_scope(name):
            return i + 1, tf.tanh(a)

    return lambda x: [tf.while_loop(lambda i, a: i < times, body, (0, x))[1]]


def branch(name, factor):
    def function(x):
        with tf.name_scope(name):
            return [tf.cond(tf.reduce_sum(x) > 0, lambda: factor * x, lambda: x)]

    return function


SQUARE = tf.TensorSpec((3, 3), tf.float32)


@pytest.mark.parametrize(
    ("one", "same", "other", "specs"),
    [
        (dense(2.0, "first"), dense(2.0, "second"), dense(3.0, "first"), [ROWS, SQUARE]),
        (loop(3, "first"), loop(3, "second"), loop(4, "first"), [ROWS]),
        (branch("first", 2.0), branch("second", 2.0), branch("first", 3.0), [ROWS]),
    ],
)
def test_names_do_not_count_and_constants_do(one, same, other, specs):
    assert digest(one, *specs) == digest(same, *specs) is not None
    assert digest(one, *specs) != digest(other, *specs)


def test_operations_arguments_and_results_count():
    found = {
        digest(lambda x, y: [x - y], ROWS, ROWS),
        digest(lambda x, y: [y - x], ROWS, ROWS),
        digest(lambda x, y: [x - y, x], ROWS, ROWS),
        digest(lambda x, y: [x, x - y], ROWS, ROWS),
        digest(lambda x, y: [x + y], ROWS, ROWS),
        digest(lambda x, y: [x - y], ROWS, tf.TensorSpec((None, 1), tf.float32)),
        digest(lambda x, y: [x - y], *[tf.TensorSpec((None, 3), tf.float64)] * 2),
    }
    assert len(found) == 7


def test_a_registered_gradient_is_no_part_of_the_function():
    # Gradients that training obeyed are recorded as graphs. Without one, the derivative is that of the operations.
    @tf.custom_gradient
    def reversed_gradient(x):
        return tf.identity(x), lambda upstream: -upstream

    @tf.custom_gradient
    def twice(x):
        return tf.identity(x), lambda upstream: 2.0 * upstream

    assert digest(lambda x: [reversed_gradient(x)], ROWS) == digest(lambda x: [twice(x)], ROWS)
    assert digest(lambda x: [tf.numpy_function(np.sin, [x], tf.float32)], ROWS) is None


def test_what_depends_on_a_variable_has_none():
    weight = tf.Variable(2.0)
    assert digest(lambda x: [weight * x], ROWS) is None
