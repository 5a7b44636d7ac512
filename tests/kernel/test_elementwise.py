"""Operations that broadcast a variable, by rules, against a loop over the examples."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.examples import C, T, check, draw

OPERATIONS = {
    "add": tf.add,
    "sub": tf.subtract,
    "mul": tf.multiply,
    "div": tf.divide,
    "max": tf.maximum,
    "min": tf.minimum,
    "squared difference": tf.math.squared_difference,
    "pow": lambda a, b: tf.pow(tf.abs(a) + 1, tf.sin(b)),
    "where": lambda a, b: tf.where(tf.sin(3 * a + b) > 0, a, b),
}


@st.composite
def _broadcasts(draw):
    rest = draw(st.lists(st.integers(1, 3), max_size=3))
    axes = draw(st.integers(0, len(rest)))
    source = [draw(st.sampled_from([1, size])) for size in rest[len(rest) - axes :]]
    if axes == len(rest):
        source = [1] * draw(st.integers(0, 1)) + source
    kept = [draw(st.sampled_from([True, True, False])) for _ in rest]
    return source, rest, kept


_CASES = given(_broadcasts(), st.sampled_from(sorted(OPERATIONS)), st.booleans())


@pytest.mark.slow
@settings(max_examples=10, derandomize=True)
@_CASES
def test_elementwise_operations_of_some_shapes(shapes, name, is_first):
    _check_elementwise(shapes, name, is_first)


@pytest.mark.nightly
@settings(max_examples=50, derandomize=True)
@_CASES
def test_elementwise_operations_of_any_shapes(shapes, name, is_first):
    _check_elementwise(shapes, name, is_first)


def _check_elementwise(shapes, name, is_first):
    source, rest, kept = shapes
    # The example's axes may also have size one where the variable's have more.
    read = [
        size if keep or axis - (len(rest) - len(source)) < 0 else 1
        for axis, (size, keep) in enumerate(zip(rest, kept, strict=True))
    ]
    if not read and source:
        read = [1]  # otherwise the variable's axis would be that of the examples
    x, v = draw((5, *read), source)
    v, operation = v + 3, OPERATIONS[name]  # away from zero, where quotients have poles
    check(
        lambda v, e: operation(v[0], e[0]) if is_first else operation(e[0], v[0]),
        [v],
        x,
        row_count=2,
        counts=(1, 3),
    )


@pytest.mark.parametrize("shape", [(1, T, C), (1, 1, C), (T, C), (T, 1), (1, T, 1), (C,), (1,), ()])
def test_position_embeddings_scales_and_offsets(shape):
    x, *variables = draw((5, T, C), shape, shape)
    check(lambda v, e: e[0] * v[0] + tf.sin(e[0]) - v[1], variables, x)


def test_tokens_that_are_repeated_for_each_example():
    x, token, mask, end = draw((5, T, C), (1, 1, C), (C,), (1, 1, C))

    def call(v, e):
        count = tf.shape(e[0])[0]
        first = tf.broadcast_to(v[0], (count, 1, C))
        last = tf.tile(v[2], (count, 2, 1))
        masked = tf.where(e[0] > 0, e[0], v[1])
        return tf.concat([first, masked, last], axis=1) ** 2

    check(call, [token, mask, end], x)
