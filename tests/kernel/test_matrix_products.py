"""Matrix products and einsums by rules, compared with a loop over the examples."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernel.examples import C, D, T, check, draw


@pytest.mark.parametrize("shape", [(C,), (T, C), (2, T, C)])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_matrix_products(shape, is_transposed):
    x, w = draw((5, *shape), (D, C) if is_transposed else (C, D))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x)


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize(("row_count", "positions"), [(1, 1), (1, 40), (40, 1), (12, 12)])
def test_products_with_few_rows_and_with_many(row_count, positions, is_transposed):
    # Few rows or positions are contracted through the outputs, many through the gradients.
    x, w = draw((5, positions, C), (D, C) if is_transposed else (C, D))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x, row_count=row_count)


def test_rows_of_one_example_merged_into_the_first_axis():
    x, w, b, u, k = draw((5, T, C), (C, C), (C,), (C, D), (1, 2, 1, 1))

    def call(v, e):
        flat = tf.reshape(e[0], (-1, C)) @ v[0] + v[1]
        images = tf.nn.conv2d(flat[:, None, :, None], v[3], 1, "SAME")[:, 0, :, 0]
        return tf.einsum("ac,cd->ad", images, v[2])

    check(call, [w, b, u, k], x)


@pytest.mark.parametrize(
    ("equation", "read", "weight"),
    [
        ("bc,cd->bd", (C,), (C, D)),
        ("btc,cd->btd", (T, C), (C, D)),
        ("btc,chd->bthd", (T, C), (C, 2, D)),
        ("bthd,hdc->btc", (T, 2, D), (2, D, C)),
        ("btc,tcd->bd", (T, C), (T, C, D)),
        ("btc,tcd->bdt", (T, C), (T, C, D)),
        ("btc,c->bt", (T, C), (C,)),
        ("bc,d->bcd", (C,), (D,)),
        ("...c,cd->...d", (2, T, C), (C, D)),
        ("b...c,cd->b...d", (2, T, C), (C, D)),
        ("b...c,cd->bd...", (2, T, C), (C, D)),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_einsums(equation, read, weight, is_first):
    x, w = draw((5, *read), weight)
    if is_first:
        labels, made = equation.split("->")
        equation = ",".join(reversed(labels.split(","))) + "->" + made

    def call(v, e):
        # Some layers avoid this operation, so it is called directly.
        operands = [v[0], e[0]] if is_first else [e[0], v[0]]
        return tf.raw_ops.Einsum(inputs=operands, equation=equation)

    check(call, [w], x)


@pytest.mark.slow
@settings(max_examples=15, derandomize=True)
@given(st.lists(st.integers(1, 3), max_size=3), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_products_of_any_shapes(positions, inner, outer, is_transposed):
    x, w = draw((5, *positions, inner), (outer, inner) if is_transposed else (inner, outer))
    check(lambda v, e: tf.matmul(e[0], v[0], transpose_b=is_transposed), [w], x, row_count=2, counts=(1, 3))
