"""Points z in a graph, as the variables that they are made of.

A model may have hundreds of variables. To split a vector into them takes two operations for each, and its derivatives take
more. So this is a function of its own, traced once and called where a copy would be made each time. Derivatives are taken
by the variables, and never pass through it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tensorflow as tf

# Sizes and types of variables for which the functions are kept.
_KEPT = 64


@dataclass(frozen=True)
class Point:
    """A point at which a graph was built.

    Attributes
    ----------
    variables : list of tf.Tensor
        What it is made of, in order.
    dtype : tf.DType
        That of the vector z.
    unpack : callable
        Makes variables of a vector (Z,), of a direction, say.
    """

    variables: list[tf.Tensor]
    dtype: tf.DType
    unpack: Callable[[tf.Tensor], list[tf.Tensor]]

    @classmethod
    def of(cls, vector: tf.Tensor) -> "Point":
        """Return a point that is its only variable."""
        return cls([vector], vector.dtype, lambda direction: [direction])

    def first(self, count: int) -> "Point":
        """Return the point of its first variables alone."""
        return Point(self.variables[:count], self.dtype, lambda direction: self.unpack(direction)[:count])

    def pack(self, values: Sequence[Any]) -> tf.Tensor:
        """Return values of the variables as a vector (Z,); None stands for zeros."""
        whole = [
            tf.zeros_like(variable) if value is None else tf.convert_to_tensor(value)
            for value, variable in zip(values, self.variables, strict=True)
        ]
        return pack(whole, self.dtype)


def unpack(vector: tf.Tensor, specs: Sequence[tf.TensorSpec]) -> list[tf.Tensor]:
    """Return the variables of a vector (Z,), in their shapes and types."""
    # Derivatives by what a call returns would be sought within the call.
    return [tf.identity(variable) for variable in cut(vector, specs)]


def cut(vector: tf.Tensor, specs: Sequence[tf.TensorSpec]) -> list[tf.Tensor]:
    """Return the same as :func:`unpack`, of which no derivative may be taken."""
    return list(_unpacking(vector.dtype, tuple((tuple(spec.shape), spec.dtype) for spec in specs))(vector))


def pack(values: Sequence[tf.Tensor], dtype: tf.DType) -> tf.Tensor:
    """Return values of variables as a vector (Z,)."""
    if len(values) == 1 and values[0].shape.rank == 1 and values[0].dtype == dtype:
        return values[0]
    return _packing(dtype, tuple((tuple(value.shape), value.dtype) for value in values))(*values)


@lru_cache(maxsize=_KEPT)
def _unpacking(dtype: tf.DType, variables: tuple[tuple[tuple[int, ...], tf.DType], ...]) -> Any:
    shapes = [tf.TensorShape(shape) for shape, _ in variables]
    sizes = [shape.num_elements() for shape in shapes]

    def split(vector: tf.Tensor) -> list[tf.Tensor]:
        pieces = tf.split(vector, sizes)
        return [
            tf.cast(tf.reshape(piece, shape), own)
            for piece, shape, (_, own) in zip(pieces, shapes, variables, strict=True)
        ]

    return tf.function(
        split, input_signature=[tf.TensorSpec((sum(sizes),), dtype)], autograph=False
    ).get_concrete_function()


@lru_cache(maxsize=_KEPT)
def _packing(dtype: tf.DType, variables: tuple[tuple[tuple[int, ...], tf.DType], ...]) -> Any:
    def join(*values: tf.Tensor) -> tf.Tensor:
        return tf.concat([tf.reshape(tf.cast(value, dtype), [-1]) for value in values], axis=0)

    signature = [tf.TensorSpec(shape, own) for shape, own in variables]
    return tf.function(join, input_signature=signature, autograph=False).get_concrete_function()
