"""Operations that have no rule."""

import pytest
import tensorflow as tf

from explaind_tf.kernel.operations.uses import NotCoveredError
from tests.kernel.examples import C, D, T, by_rules, draw


@tf.custom_gradient
def _doubled(x, w):
    return x @ w, lambda d: (2 * d @ tf.transpose(w), 2 * tf.transpose(x) @ d)


REFUSED = {
    "a product from the left": ((C, T, D), (C, C), lambda x, w: tf.matmul(w[None, :T, :T], x)),
    "a stack of matrices": ((T, C), (T, C, D), lambda x, w: tf.matmul(x[:, :, None], w)),
    "a gather along the second axis": ((), (C, D), lambda x, w: tf.gather(w, tf.cast(x, tf.int32) % D, axis=1)),
    "a variable with an axis of examples": ((), (C,), lambda x, w: w * tf.reduce_sum(x)),
    "a filter made of examples": ((3, 2, D), (1, 5, 5, 2), lambda x, w: tf.nn.conv2d(w, x[0][None], 1, "SAME")),
    "a tile of several elements": ((), (1, C), lambda x, w: tf.tile(w, (tf.shape(x)[0], 2))),
    "an einsum without an axis of examples": ((C,), (C, D), lambda x, w: tf.einsum("bc,cd->db", x, w)),
    "a sum over examples": ((C,), (C, D), lambda x, w: tf.einsum("bc,bd->cd", w, w) * tf.reduce_sum(x)),
    "a scan": ((C,), (C, C), lambda x, w: tf.while_loop(lambda a: True, lambda a: (a @ w,), (x,), maximum_iterations=2)[0]),
    "a branch": ((C,), (C, C), lambda x, w: tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x @ (w + 1))),
    "a function": ((C,), (C, C), lambda x, w: tf.function(tf.matmul, autograph=False)(x, w)),
    "a gradient of its own": ((C,), (C, C), _doubled),
    "a convolution of channels first": (
        (C, 5, 5), (C,), lambda x, w: tf.nn.bias_add(x, w, data_format="NCHW")
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_whatever_has_no_rule_says_so(name):
    read, weight, call = REFUSED[name]
    x, w = draw((5, *read), weight)
    compiled = by_rules(lambda v, e: call(e[0], v[0]), [w], [x])
    with pytest.raises(NotCoveredError, match=r"\w"):
        compiled.get_concrete_function()
