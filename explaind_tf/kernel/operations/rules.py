"""Rules: the gradient of single examples through one use of a variable.

A rule works in two parts. Its *taps* are what a gradient is made of: what the operation read, and δ, the gradient by
what it returned. All have the axes (K examples, rows, ...), and the gradient of an example is a sum over its rows: the
positions of a sequence, say, or the nodes of a quadrature, one behind the other. The second part makes of taps the
gradients, or their scalar products with rows Ψ; it reads nothing of the graph in which the taps were made.

The examples of a batch must come one after the other along the first axis of what the operation reads and returns, each with
the same number of rows. A graph cannot promise that, so it is checked with numbers before the rules are trusted.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from explaind_tf.kernel.operations.uses import NotCoveredError, Use

# To write and read an element of a gradient costs as much as some 15 of the multiplications in a matrix product.
_MEMORY_COST = 15

Taps = Sequence[tf.Tensor]


class Rule(Protocol):
    """What is known about the operation of one use."""

    tap_count: int

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        """Return what the gradients of ``count`` examples are made of, each of shape (K, rows, ...)."""
        ...

    def gradients(self, taps: Taps) -> tf.Tensor:
        """Return the gradient of each example by the use's source, shape (K, *source)."""
        ...

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        """Return its scalar products with rows (F, *source), shape (F, K)."""
        ...


class _ByGradients:
    """Contracts by way of the gradients."""

    tap_count = 2

    def __init__(self, use: Use) -> None:
        self._use = use

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        raise NotImplementedError

    def gradients(self, taps: Taps) -> tf.Tensor:
        raise NotImplementedError

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        size = self._use.source.shape.num_elements()
        gradients = tf.reshape(self.gradients(taps), (-1, size))
        return scalar_products(tf.reshape(rows, (-1, size)), gradients)


def scalar_products(rows: tf.Tensor, vectors: tf.Tensor) -> tf.Tensor:
    """Return the scalar products of rows (F, size) with vectors (K, size), shape (F, K).

    As the product of the vectors with the rows: the other way round, ``rows @ vectorsᵀ``, takes TensorFlow three to five
    times as long where there are more vectors than rows, as in a batch (128 × 590 k by 16 on two cores: 27 and 149 ms).
    """
    return tf.transpose(tf.matmul(vectors, tf.transpose(rows)))


class _MatMul(_ByGradients):
    """``x @ W``, x of any rank, W (or its transpose) a matrix."""

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        left, right = ("transpose_a", "transpose_b") if use.operation.type == "MatMul" else ("adj_x", "adj_y")
        if use.index != 1 or use.source.shape.rank != 2 or use.operation.get_attr(left):
            raise NotCoveredError(f"{use.operation.name} multiplies a variable from an unusual side")
        self._is_transposed = use.operation.get_attr(right)

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        inner, outer = self._use.source.shape.as_list()
        x, y = (outer, inner) if self._is_transposed else (inner, outer)
        return [tf.reshape(self._use.other, (count, -1, x)), tf.reshape(delta, (count, -1, y))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        x, delta = taps
        first, second = (delta, x) if self._is_transposed else (x, delta)
        return tf.matmul(first, second, transpose_a=True)

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        x, own = taps
        count, positions, number = tf.shape(x)[0], tf.shape(x)[1], tf.shape(rows)[0]

        def without_gradients() -> tf.Tensor:
            # ⟨Ψ, xᵀδ⟩ = ⟨xΨ, δ⟩ = ⟨x, δΨᵀ⟩: no gradient is ever made. The narrower of the two products is taken.
            if (x.shape[2] < own.shape[2]) != self._is_transposed:
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
            lambda: super(_MatMul, self).contract(taps, rows),
        )


class _Gather(_ByGradients):
    """``E[tokens]``."""

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        axis = tf.get_static_value(use.operation.inputs[2]) if len(use.operation.inputs) > 2 else 0
        if use.index != 0 or axis != 0 or use.operation.get_attr("batch_dims"):
            raise NotCoveredError(f"{use.operation.name} gathers along another axis than the first")

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        rest = self._use.source.shape[1:].num_elements()
        return [tf.reshape(self._use.other, (count, -1)), tf.reshape(delta, (count, -1, rest))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        tokens, own = taps
        size, rest = self._use.source.shape[0], self._use.source.shape[1:]
        count = tf.shape(tokens, tf.int64)[0]
        places = tf.cast(tokens, tf.int64) + size * tf.range(count)[:, None]
        summed = tf.math.unsorted_segment_sum(
            tf.reshape(own, (-1, rest.num_elements())), tf.reshape(places, (-1,)), count * size
        )
        return tf.reshape(summed, (-1, size, *rest))

    def contract(self, taps: Taps, rows: tf.Tensor) -> tf.Tensor:
        tokens, own = taps
        flat = tf.reshape(rows, (tf.shape(rows)[0], self._use.source.shape[0], -1))
        # One row at a time: what is gathered is as large as the batch.
        return tf.map_fn(
            lambda row: tf.reduce_sum(tf.gather(row, tokens) * own, axis=(1, 2)), flat, parallel_iterations=2
        )


class _Elementwise(_ByGradients):
    """An operation that broadcasts its two inputs.

    Parameters
    ----------
    use : Use
        The use.
    slope : callable
        From the use and δ to the gradient by the source as if it had been broadcast before.
    """

    tap_count = 1

    def __init__(self, use: Use, slope: Callable[[Use, tf.Tensor], tf.Tensor]) -> None:
        super().__init__(use)
        shape, rank = use.source.shape, use.output.shape.rank
        if rank is None or shape.rank > rank or (shape.rank == rank and shape[0] != 1):
            raise NotCoveredError(f"{use.operation.name} has a variable with an axis of examples")
        self._slope = slope

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        shape, rank = self._use.source.shape, self._use.output.shape.rank
        full = self._slope(self._use, delta)
        missing = rank - shape.rank
        # The first axis holds examples and, behind them, maybe positions.
        axes = [a for a in range(1, rank) if a < missing or shape[a - missing] == 1]
        summed = tf.reduce_sum(full, axis=axes)
        rest = [size for size in shape.as_list()[max(0, 1 - missing) :] if size != 1]
        by_example = tf.reduce_sum(tf.reshape(summed, (count, -1, *rest)), axis=1)
        return [tf.reshape(by_example, (count, 1, *shape.as_list()))]

    def gradients(self, taps: Taps) -> tf.Tensor:
        return tf.reduce_sum(taps[0], axis=1)


class _Tile(_Elementwise):
    """``tf.tile(v, [batch, 1, ...])``: a repetition that broadcasting could have done, of a class token, say."""

    def __init__(self, use: Use) -> None:
        super().__init__(use, _same)
        made, source = use.output.shape.as_list(), use.source.shape.as_list()
        if any(m != s and s != 1 for m, s in zip(made[1:], source[1:], strict=True)):
            raise NotCoveredError(f"{use.operation.name} repeats a variable along axes with several elements")


class _OneByOne(_ByGradients):
    """Any operation on examples along the first axis: its own derivative, taken of one example at a time.

    Parameters
    ----------
    use : Use
        The use; the variable is input 1.
    data : int
        Which input holds the examples.
    sizes : int or None
        Which input holds the shape of what is returned, if one does.
    """

    def __init__(self, use: Use, data: int = 0, sizes: int | None = None) -> None:
        super().__init__(use)
        if use.index != 1:
            raise NotCoveredError(f"{use.operation.name} ({use.operation.type}) has examples for a filter")
        if sizes is not None and not use.output.shape[1:].is_fully_defined():
            raise NotCoveredError(f"{use.operation.name} ({use.operation.type}) returns images of any size")
        self._data, self._sizes = data, sizes

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        data = self._use.operation.inputs[self._data]
        is_dealt = _is_dealt(data)

        def by_example(tensor: tf.Tensor) -> tf.Tensor:
            rest = tf.shape(tensor)[1:]
            if is_dealt:
                return tf.einsum("rk...->kr...", tf.reshape(tensor, tf.concat([[-1, count], rest], axis=0)))
            return tf.reshape(tensor, tf.concat([[count, -1], rest], axis=0))

        return [by_example(data), by_example(delta)]

    def gradients(self, taps: Taps) -> tf.Tensor:
        source = self._use.source
        place = tf.zeros(source.shape, source.dtype)  # the operation is linear in it

        def one(example: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            own, own_delta = example
            data = self._use.operation.inputs[self._data]
            inputs = {self._data: tf.ensure_shape(own, (None, *data.shape[1:])), 1: place}
            if self._sizes is not None:
                dtype = self._use.operation.inputs[self._sizes].dtype
                rest = tf.constant(self._use.output.shape[1:].as_list(), dtype)
                inputs[self._sizes] = tf.concat([tf.shape(own, dtype)[:1], rest], axis=0)
            (gradient,) = tf.gradients(_again(self._use, inputs), place, grad_ys=own_delta)
            return gradient

        return tf.map_fn(
            one,
            tuple(taps),
            fn_output_signature=tf.TensorSpec(source.shape, taps[1].dtype),
            parallel_iterations=4,
        )


class _Conv2D(_OneByOne):
    """A convolution. Where its images are small, one matrix product an example of all patches that the filter met.

    The patches of an example then take no more memory than its gradient, and all examples are done at once: on images of
    8×8 with 256 channels in 60 to 45 % of the time of one by one.
    """

    def __init__(self, use: Use) -> None:
        super().__init__(use)
        operation, filters = use.operation, use.source.shape[-1]
        images, made = operation.inputs[0].shape[1:], use.output.shape[1:-1]
        self._has_patches = (
            images.is_fully_defined()
            and made.is_fully_defined()
            and made.num_elements() <= filters
            and images[-1] == use.source.shape[2]  # no groups of channels
            and operation.get_attr("data_format") == b"NHWC"
            and operation.get_attr("padding") in (b"SAME", b"VALID")
            and set(operation.get_attr("dilations")) == {1}
        )

    def gradients(self, taps: Taps) -> tf.Tensor:
        if not self._has_patches:
            return super().gradients(taps)
        images, own = taps
        operation, source = self._use.operation, self._use.source.shape
        count = tf.shape(images)[0]
        patches = tf.image.extract_patches(
            tf.reshape(images, (-1, *images.shape[2:])),
            [1, *source[:2], 1],
            operation.get_attr("strides"),
            [1, 1, 1, 1],
            operation.get_attr("padding").decode(),
        )
        patches = tf.reshape(patches, (count, -1, source[:3].num_elements()))
        own = tf.reshape(own, (count, -1, source[3]))
        return tf.reshape(tf.matmul(patches, own, transpose_a=True), (-1, *source))


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

    def __init__(self, use: Use) -> None:
        super().__init__(use)
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
        self._equation = f"{example}{other},{example}{made}->{example}{own}"

    def taps(self, delta: tf.Tensor, count: tf.Tensor) -> list[tf.Tensor]:
        return [
            tf.reshape(tensor, tf.concat([[count, -1], tf.shape(tensor)[1:]], axis=0))
            for tensor in (self._use.other, delta)
        ]

    def gradients(self, taps: Taps) -> tf.Tensor:
        return tf.einsum(self._equation, *taps)


def _product(use: Use, delta: tf.Tensor) -> tf.Tensor:
    return delta * use.other


def _slope(use: Use, delta: tf.Tensor) -> tf.Tensor:
    """Return the slope of any elementwise operation: its own derivative by the source, broadcast before."""
    source = tf.broadcast_to(use.source, tf.shape(use.output))
    (slope,) = tf.gradients(_again(use, {use.index: source}), source, grad_ys=delta)
    return slope


def _same(use: Use, delta: tf.Tensor) -> tf.Tensor:
    return delta


def _sum(use: Use) -> Rule:
    return _Elementwise(use, _same)


def _difference(use: Use) -> Rule:
    return _Elementwise(use, lambda use, delta: -delta if use.index else delta)


def _multiplication(use: Use) -> Rule:
    return _Elementwise(use, _product)


def _elementwise(use: Use) -> Rule:
    return _Elementwise(use, _slope)


def _transposed(use: Use) -> Rule:
    return _OneByOne(use, data=2, sizes=0)


_RULES: dict[str, Callable[[Use], Rule]] = {
    "MatMul": _MatMul,
    "BatchMatMulV2": _MatMul,
    "GatherV2": _Gather,
    "Einsum": _Einsum,
    "Add": _sum,
    "AddV2": _sum,
    "BiasAdd": _sum,
    "Sub": _difference,
    "Mul": _multiplication,
    "BroadcastTo": _sum,
    "Tile": _Tile,
    **dict.fromkeys(("RealDiv", "Maximum", "Minimum", "Pow", "SquaredDifference", "SelectV2"), _elementwise),
    "Conv2D": _Conv2D,
    "Conv3D": _OneByOne,
    "DepthwiseConv2dNative": _OneByOne,
    "Conv2DBackpropInput": _transposed,
    "Conv3DBackpropInputV2": _transposed,
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
    return _RULES[operation.type](use)
