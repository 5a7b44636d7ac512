"""Rules: the gradient of single examples through one use of a variable.

A rule works in two parts. The first returns the *taps*, from which a gradient is computed: what the operation read, and
δ, the gradient by what it returned. Taps have the axes (K examples, rows, ...). The gradient of an example is a sum over
its rows, for example the positions of a sequence or the nodes of a quadrature. The second part computes from taps the
gradients, or their scalar products with rows Ψ. It reads no values from the graph in which the taps were made.

The examples of a batch must come one after the other along the first axis of what the operation reads and returns, each
with the same number of rows. A graph cannot guarantee that, so rules are checked with numbers before they are used
(:mod:`explaind_tf.kernel.trials`).
"""

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from explaind_tf.kernel.operations.uses import Use

Taps = Sequence[tf.Tensor]


class Rule(Protocol):
    """What is known about the operation of one use."""

    tap_count: int

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return what the gradients of ``count`` examples are computed from, each of shape (K, rows, ...)."""
        ...

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return the gradient of each example by the use's source, shape (K, *source)."""
        ...

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        """Return the scalar products of the gradients with rows (F, *source), shape (F, K)."""
        ...


class ByGradients:
    """A rule that computes the gradients, and contracts them."""

    tap_count = 2

    def __init__(self, use: Use) -> None:
        self._use = use

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return what the gradients are computed from."""
        raise NotImplementedError

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return the gradients, shape (K, *source)."""
        raise NotImplementedError

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        """Return the products of the gradients with rows, shape (F, K)."""
        return by_gradients(self.gradients(taps), rows)


def by_gradients(gradients: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return the scalar products of rows (F, *source) with gradients (K, *source), shape (F, K)."""
    size = rows.shape[1:].num_elements()
    return scalar_products(tf.reshape(rows, (-1, size)), tf.reshape(gradients, (-1, size)))


def scalar_products(rows: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Return the scalar products of rows (F, size) with vectors (K, size), shape (F, K).

    They are computed as ``vectors @ rowsᵀ``. With more vectors than rows, as in a batch, ``rows @ vectorsᵀ`` takes
    TensorFlow three to five times as long (128 × 590 k by 16 on two cores: 149 ms instead of 27 ms).
    """
    return tf.transpose(tf.matmul(vectors, tf.transpose(rows)))
