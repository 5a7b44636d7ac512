"""Rules of products of examples with a matrix, or a tensor, of weights."""

import string

import tensorflow as tf

from explaind_tf.kernel.operations.called import called
from explaind_tf.kernel.operations.rule import ByGradients, Taps, by_gradients
from explaind_tf.kernel.operations.uses import NotCoveredError, Use

# Writing and reading an element of a gradient costs as much as about 15 multiplications of a matrix product.
_MEMORY_COST = 15


class MatMul(ByGradients):
    """``x @ W``, x of any rank, W (or its transpose) a matrix."""

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        left, right = ("transpose_a", "transpose_b") if use.operation.type == "MatMul" else ("adj_x", "adj_y")
        if use.index != 1 or use.source.shape.rank != 2 or use.operation.get_attr(left):
            raise NotCoveredError(
                f"{use.operation.name} has no rule. The rule of a product needs x @ W or x @ Wᵀ, with x not transposed and "
                f"a variable W of rank 2."
            )
        self._is_transposed = use.operation.get_attr(right)

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return x and δ, each of shape (K, positions, features)."""
        inner, outer = self._use.source.shape.as_list()
        x, y = (outer, inner) if self._is_transposed else (inner, outer)
        return [tf.reshape(self._use.other, (count, -1, x)), tf.reshape(delta, (count, -1, y))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return xᵀδ of each example."""
        x, delta = taps
        return _product(x, delta, self._is_transposed)

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        """Return ⟨Ψ, xᵀδ⟩, through the outputs if that is cheaper."""
        return _contracted(*taps, rows, is_transposed=self._is_transposed)


def _product(x: tf.Tensor, delta: tf.Tensor, is_transposed: bool) -> tf.Tensor:
    """Return xᵀδ of each example, or its transpose."""
    first, second = (delta, x) if is_transposed else (x, delta)
    return tf.matmul(first, second, transpose_a=True)


@called
def _contracted(x: tf.Tensor, delta: tf.Tensor, rows: tf.Tensor, *, is_transposed: bool) -> tf.Tensor:
    """Return the products of rows (F, *matrix) with xᵀδ of each example, shape (F, K)."""
    count, positions, number = tf.shape(x)[0], tf.shape(x)[1], tf.shape(rows)[0]

    def without_gradients() -> tf.Tensor:
        # ⟨Ψ, xᵀδ⟩ = ⟨xΨ, δ⟩ = ⟨x, δΨᵀ⟩: no gradient is formed. The narrower of the two products is used.
        if (x.shape[2] < delta.shape[2]) != is_transposed:
            stacked = tf.transpose(rows, (2, 0, 1))
        else:
            stacked = tf.transpose(rows, (1, 0, 2))
        first, second = (delta, x) if x.shape[2] < delta.shape[2] else (x, delta)
        wide, narrow = first.shape[2], second.shape[2]
        moved = tf.matmul(tf.reshape(first, (-1, wide)), tf.reshape(stacked, (wide, -1)))
        moved = tf.reshape(moved, (-1, number, narrow)) * tf.reshape(second, (-1, 1, narrow))
        by_position = tf.reshape(tf.reduce_sum(moved, axis=2), (count, positions, number))
        return tf.transpose(tf.reduce_sum(by_position, axis=1))

    return tf.cond(
        number * positions <= positions + number + _MEMORY_COST,
        without_gradients,
        lambda: by_gradients(_product(x, delta, is_transposed), rows),
    )


class Einsum(ByGradients):
    """``einsum("b…,…->b…", x, W)``."""

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        equation = use.operation.get_attr("equation").decode().replace(" ", "")
        read, made = equation.split("->")
        labels = read.split(",")
        free = [letter for letter in string.ascii_letters if letter not in equation]
        if len(labels) == 2:
            # The ellipsis stands for as many axes of the examples as of the result.
            length = (use.other.shape.rank or 0) - len(labels[1 - use.index].replace("...", ""))
            labels = [part.replace("...", "".join(free[1 : 1 + length])) for part in labels]
            made = made.replace("...", "".join(free[1 : 1 + length]))
            own, other = labels[use.index], labels[1 - use.index]
        if len(labels) != 2 or len(own) != use.source.shape.rank or len(made) != use.output.shape.rank:
            raise NotCoveredError(
                f"einsum {equation!r} has no rule. The rule needs two operands, and one label for each axis."
            )
        if made[:1] != other[:1] or made[:1] in own or not set(own) <= set(other) | set(made):
            raise NotCoveredError(
                f"einsum {equation!r} has no rule. The rule needs examples on the first axis of operand and result, and no "
                f"axis that only the variable has."
            )
        # The first axis may hold several positions of each example, so taps have one more axis.
        example = free[0]
        self._equation = f"{example}{other},{example}{made}->{example}{own}"

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return what was read and δ, with axes of examples and rows before those of the equation."""
        return [
            tf.reshape(tensor, tf.concat([[count, -1], tf.shape(tensor)[1:]], axis=0))
            for tensor in (self._use.other, delta)
        ]

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return the sum over all labels that the variable does not have, computed by another einsum."""
        return tf.einsum(self._equation, *taps)
