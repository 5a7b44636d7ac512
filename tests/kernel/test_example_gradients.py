"""Operations between variables and their uses, compared with a loop over the examples."""

import numpy as np
import tensorflow as tf

from tests.kernel.examples import C, D, T, by_rules, check, draw, one_by_one


def test_a_variable_through_reshapes_and_transposes():
    (w,) = draw((C, D, T))
    x = draw((5, C))[0]

    def call(v, e):
        moved = tf.reshape(tf.transpose(v[0], (2, 0, 1)), (T * C, D))
        moved = tf.squeeze(tf.expand_dims(tf.identity(moved), 1), 1)
        return tf.tile(e[0], (1, T)) @ moved

    check(call, [w], x)


def test_variables_used_twice_in_different_ways():
    x, w, u = draw((5, C), (C, C), (C, C))

    def call(v, e):
        hidden = tf.tanh(e[0] @ v[0])
        mixed = hidden @ tf.transpose(v[0]) + v[0][0]  # a row of it, as an offset
        # Examples read the product of two variables as one tensor.
        return mixed @ (v[0] @ v[1]) + tf.reduce_sum(v[1] ** 2)

    check(call, [w, u], x)


def test_variables_that_are_cut_looked_up_cast_or_stopped():
    x, w, table, idle = draw((5, T, C), (C, 3 * D), (T + 1, 3 * D), (D,))

    def call(v, e):
        q, k, o = tf.split(v[0], 3, axis=1)
        read = e[0] @ q + e[0] @ k * tf.tanh(e[0] @ o)
        places = tf.cast(tf.gather(v[1], tf.range(T)), tf.float64)
        return read + places[:, :D] * tf.stop_gradient(v[2])

    check(call, [w, table.astype("float32"), idle], x)


def test_variables_of_another_dtype_than_the_first():
    x, w, b = draw((5, C), (C, D), (D,))

    def call(v, e):
        return tf.cast(tf.cast(e[0] @ v[0], tf.float32) + v[1], tf.float64)

    variables = [tf.constant(w), tf.constant(b.astype("float32"))]
    rows = [tf.constant(r) for r in draw((2, C, D), (2, D))]
    gradients, products = by_rules(call, variables, [x])(variables, [x], rows)
    expected = np.array([np.concatenate(g) for g in one_by_one(call, variables, [tf.constant(x)])])
    np.testing.assert_allclose(gradients, expected, rtol=1e-5, atol=1e-5)  # float32
    flat = np.concatenate([np.reshape(r, (2, -1)) for r in rows], axis=1)
    np.testing.assert_allclose(np.sum(products, axis=-1), flat @ expected.T, rtol=1e-4, atol=1e-4)


def test_comparisons_with_variables_and_variables_that_examples_never_meet():
    x, w, v = draw((5, C), (C, C), (C,))

    def call(variables, e):
        above = tf.cast(e[0] > variables[1], tf.float64)
        return above * (e[0] @ variables[0])

    check(call, [w, v], x)
    check(lambda variables, e: tf.sin(e[0]), [w, v], x)


def test_loops_over_examples_alone_or_over_variables_alone_are_no_uses():
    x, w = draw((5, C), (C, C))

    def call(v, e):
        powers = tf.map_fn(lambda row: 2 * row, v[0])  # its derivative passes lists of tensors
        _, read = tf.while_loop(lambda i, _: i < 3, lambda i, a: (i + 1, tf.sin(a)), (0, e[0]))
        return read @ powers

    check(call, [w], x)
