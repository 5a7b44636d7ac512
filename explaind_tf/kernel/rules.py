"""Rules: the gradient of single examples through one use of a variable.

Every rule takes the use, δ (the gradient by what the operation returned) and the number of examples K. The examples of a
batch must come one after the other along the first axis of what the operation reads and returns, each with the same number
of rows (positions of a sequence, say). A graph cannot promise that, so it is checked with numbers before the
rules are trusted.
"""

import string
from collections.abc import Callable
from typing import Any, Protocol

import tensorflow as tf

from explaind_tf.kernel.uses import NotCoveredError, Use

# To write and read an element of a gradient costs as much as some 50 of the multiplications in a matrix product.
_MEMORY_COST = 50


class Rule(Protocol):
    """What is known about an operation."""

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Return the gradient of each example by the use's source, shape (K, *source)."""
        ...

    def contract(self, use: Use, delta: tf.Tensor, count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        """Return its scalar products with rows (F, *source), shape (F, K)."""
        ...


class _ByGradients:
    """Contracts by way of the gradients."""

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        raise NotImplementedError

    def contract(self, use: Use, delta: tf.Tensor, count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        gradients = self.gradients(use, delta, count)
        size = use.source.shape.num_elements()
        return tf.matmul(tf.reshape(rows, (-1, size)), tf.reshape(gradients, (-1, size)), transpose_b=True)


class _MatMul(_ByGradients):
    """``x @ W``, x of any rank, W (or its transpose) a matrix."""

    def _parts(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, bool]:
        left, right = ("transpose_a", "transpose_b") if use.operation.type == "MatMul" else ("adj_x", "adj_y")
        if use.index != 1 or use.source.shape.rank != 2 or use.operation.get_attr(left):
            raise NotCoveredError(f"{use.operation.name} multiplies a variable from an unusual side")
        is_transposed = use.operation.get_attr(right)
        inner, outer = use.source.shape.as_list()
        x, y = (outer, inner) if is_transposed else (inner, outer)
        return tf.reshape(use.other, (count, -1, x)), tf.reshape(delta, (count, -1, y)), is_transposed

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        x, delta, is_transposed = self._parts(use, delta, count)
        return (
            tf.matmul(delta, x, transpose_a=True) if is_transposed else tf.matmul(x, delta, transpose_a=True)
        )

    def contract(self, use: Use, delta: tf.Tensor, count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        x, own, is_transposed = self._parts(use, delta, count)
        positions, number = tf.shape(x)[1], tf.shape(rows)[0]

        def without_gradients() -> tf.Tensor:
            # ⟨Ψ, xᵀδ⟩ = ⟨xΨ, δ⟩ = ⟨x, δΨᵀ⟩: no gradient is ever made. The narrower of the two products is taken.
            if (x.shape[2] < own.shape[2]) != is_transposed:
                stacked = tf.transpose(rows, (2, 0, 1))
            else:
                stacked = tf.transpose(rows, (1, 0, 2))
            first, second = (own, x) if x.shape[2] < own.shape[2] else (x, own)
            wide, narrow = first.shape[2], second.shape[2]
            moved = tf.matmul(tf.reshape(first, (-1, wide)), tf.reshape(stacked, (wide, -1)))
            moved = tf.reshape(moved, (-1, number, narrow)) * tf.reshape(second, (-1, 1, narrow))
            by_position = tf.reshape(tf.reduce_sum(moved, axis=2), (count, positions, number))
            return tf.transpose(tf.reduce_sum(by_position, axis=1))

        return tf.cond(
            number * positions <= positions + number + _MEMORY_COST,
            without_gradients,
            lambda: super(_MatMul, self).contract(use, delta, count, rows),
        )


class _Gather(_ByGradients):
    """``E[tokens]``."""

    def _parts(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        axis = tf.get_static_value(use.operation.inputs[2]) if len(use.operation.inputs) > 2 else 0
        if use.index != 0 or axis != 0 or use.operation.get_attr("batch_dims"):
            raise NotCoveredError(f"{use.operation.name} gathers along another axis than the first")
        rest = use.source.shape[1:].num_elements()
        return tf.reshape(use.other, (count, -1)), tf.reshape(delta, (count, -1, rest))

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        tokens, own = self._parts(use, delta, count)
        size, rest = use.source.shape[0], use.source.shape[1:]
        places = tf.cast(tokens, tf.int64) + size * tf.range(tf.cast(count, tf.int64))[:, None]
        summed = tf.math.unsorted_segment_sum(
            tf.reshape(own, (-1, rest.num_elements())),
            tf.reshape(places, (-1,)),
            tf.cast(count, tf.int64) * size,
        )
        return tf.reshape(summed, (count, size, *rest))

    def contract(self, use: Use, delta: tf.Tensor, count: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
        tokens, own = self._parts(use, delta, count)
        flat = tf.reshape(rows, (tf.shape(rows)[0], use.source.shape[0], -1))
        # One row at a time: what is gathered is as large as the batch.
        return tf.map_fn(
            lambda row: tf.reduce_sum(tf.gather(row, tokens) * own, axis=(1, 2)), flat, parallel_iterations=2
        )


class _Elementwise(_ByGradients):
    """An operation that broadcasts its two inputs.

    Parameters
    ----------
    slope : callable
        From the use and δ to the gradient by the source as if it had been broadcast before.
    """

    def __init__(self, slope: Callable[[Use, tf.Tensor], tf.Tensor]) -> None:
        self._slope = slope

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        shape, rank = use.source.shape, use.output.shape.rank
        if rank is None or shape.rank > rank or (shape.rank == rank and shape[0] != 1):
            raise NotCoveredError(f"{use.operation.name} has a variable with an axis of examples")
        full = self._slope(use, delta)
        missing = rank - shape.rank
        # The first axis holds examples and, behind them, maybe positions.
        axes = [a for a in range(1, rank) if a < missing or shape[a - missing] == 1]
        summed = tf.reduce_sum(full, axis=axes)
        rest = [size for size in shape.as_list()[max(0, 1 - missing) :] if size != 1]
        by_example = tf.reduce_sum(tf.reshape(summed, (count, -1, *rest)), axis=1)
        return tf.reshape(by_example, (count, *shape.as_list()))


class _Tile(_Elementwise):
    """``tf.tile(v, [batch, 1, ...])``: a repetition that broadcasting could have done, of a class token, say."""

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        made, source = use.output.shape.as_list(), use.source.shape.as_list()
        if any(m != s and s != 1 for m, s in zip(made[1:], source[1:], strict=True)):
            raise NotCoveredError(f"{use.operation.name} repeats a variable along axes with several elements")
        return super().gradients(use, delta, count)


class _OneByOne(_ByGradients):
    """Any operation on examples along the first axis: its own derivative, taken of one example at a time.

    Parameters
    ----------
    data : int
        Which input holds the examples. The variable is input 1.
    sizes : int or None
        Which input holds the shape of what is returned, if one does.
    """

    def __init__(self, data: int = 0, sizes: int | None = None) -> None:
        self._data, self._sizes = data, sizes

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        if use.index != 1:
            raise NotCoveredError(f"{use.operation.name} ({use.operation.type}) has examples for a filter")
        data = use.operation.inputs[self._data]
        is_dealt = _is_dealt(data)

        def split(tensor: tf.Tensor) -> tf.Tensor:
            rest = tf.shape(tensor)[1:]
            if is_dealt:
                return tf.einsum("rk...->kr...", tf.reshape(tensor, tf.concat([[-1, count], rest], axis=0)))
            return tf.reshape(tensor, tf.concat([[count, -1], rest], axis=0))

        def one(example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            own, own_delta = example
            inputs = {self._data: tf.ensure_shape(own, (None, *data.shape[1:]))}
            if self._sizes is not None:
                sizes = use.operation.inputs[self._sizes]
                inputs[self._sizes] = tf.concat([tf.shape(own, sizes.dtype)[:1], sizes[1:]], axis=0)
            (gradient,) = tf.gradients(_again(use, inputs), use.source, grad_ys=own_delta)
            return gradient

        return tf.map_fn(
            one,
            (split(data), split(delta)),
            fn_output_signature=tf.TensorSpec(use.source.shape, delta.dtype),
            parallel_iterations=4,
        )


def _is_dealt(tensor: tf.Tensor) -> bool:
    """Tell whether images have been cut into interlaced ones for a dilated convolution: first one of each, and so on."""
    operation = tensor.op
    while operation.type in ("ExpandDims", "Identity"):
        operation = operation.inputs[0].op
    return operation.type == "SpaceToBatchND"


def _again(use: Use, others: dict[int, tf.Tensor]) -> tf.Tensor:
    """Return the use's operation with some of its inputs replaced."""
    operation = use.operation
    inputs = [others.get(index, tensor) for index, tensor in enumerate(operation.inputs)]
    arguments: dict[str, Any] = {
        spec.name: value for spec, value in zip(operation.op_def.input_arg, inputs, strict=True)
    }
    for spec in operation.op_def.attr:
        if spec.type != "type":
            value = operation.get_attr(spec.name)
            arguments[spec.name] = value.decode() if isinstance(value, bytes) else value
    return getattr(tf.raw_ops, operation.type)(**arguments)


class _Einsum(_ByGradients):
    """``einsum("b…,…->b…", x, W)``."""

    def gradients(self, use: Use, delta: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        equation = use.operation.get_attr("equation").decode().replace(" ", "")
        read, made = equation.split("->")
        labels = read.split(",")
        free = [letter for letter in string.ascii_letters if letter not in equation]
        if len(labels) == 2:
            # What the ellipsis stands for is as long in what is read of the examples as in what is returned.
            length = (use.other.shape.rank or 0) - len(labels[1 - use.index].replace("...", ""))
            labels = [part.replace("...", "".join(free[1 : 1 + length])) for part in labels]
            made = made.replace("...", "".join(free[1 : 1 + length]))
            own, other = labels[use.index], labels[1 - use.index]
        if len(labels) != 2 or len(own) != use.source.shape.rank or len(made) != use.output.shape.rank:
            raise NotCoveredError(f"einsum {equation!r} has no rule")
        if made[:1] != other[:1] or made[:1] in own or not set(own) <= set(other) | set(made):
            raise NotCoveredError(f"einsum {equation!r} does not keep examples on the first axis")
        # Behind the axis of examples there may be positions in the same axis of the tensors.
        example = free[0]
        x, d = (
            tf.reshape(tensor, tf.concat([[count, -1], tf.shape(tensor)[1:]], axis=0))
            for tensor in (use.other, delta)
        )
        return tf.einsum(f"{example}{other},{example}{made}->{example}{own}", x, d)


def _product(use: Use, delta: tf.Tensor) -> tf.Tensor:
    return delta * use.other


def _slope(use: Use, delta: tf.Tensor) -> tf.Tensor:
    """Return the slope of any elementwise operation: its own derivative by the source, broadcast before."""
    source = tf.broadcast_to(use.source, tf.shape(use.output))
    (slope,) = tf.gradients(_again(use, {use.index: source}), source, grad_ys=delta)
    return slope


_SUM = _Elementwise(lambda use, delta: delta)
_ELEMENTWISE = _Elementwise(_slope)
_MATMUL, _ONE_BY_ONE, _TRANSPOSED = _MatMul(), _OneByOne(), _OneByOne(data=2, sizes=0)
_RULES: dict[str, Rule] = {
    "MatMul": _MATMUL,
    "BatchMatMulV2": _MATMUL,
    "GatherV2": _Gather(),
    "Einsum": _Einsum(),
    "Add": _SUM,
    "AddV2": _SUM,
    "BiasAdd": _SUM,
    "Sub": _Elementwise(lambda use, delta: -delta if use.index else delta),
    "Mul": _Elementwise(_product),
    "BroadcastTo": _SUM,
    "Tile": _Tile(lambda use, delta: delta),
    **dict.fromkeys(("RealDiv", "Maximum", "Minimum", "Pow", "SquaredDifference", "SelectV2"), _ELEMENTWISE),
    "Conv2D": _ONE_BY_ONE,
    "Conv3D": _ONE_BY_ONE,
    "DepthwiseConv2dNative": _ONE_BY_ONE,
    "Conv2DBackpropInput": _TRANSPOSED,
    "Conv3DBackpropInputV2": _TRANSPOSED,
}


def rule_of(use: Use) -> Rule:
    """Return the rule for a use.

    Raises
    ------
    NotCoveredError
        If there is none.
    """
    operation = use.operation
    is_covered = operation.type in _RULES and use.source.shape.is_fully_defined()
    if "_gradient_op_type" in operation.node_def.attr:
        raise NotCoveredError(f"{operation.name} ({operation.type}) has a gradient of its own")
    if not is_covered or (operation.type == "BiasAdd" and operation.get_attr("data_format") != b"NHWC"):
        raise NotCoveredError(f"{operation.name} ({operation.type}) has no rule")
    return _RULES[operation.type]
