"""Sizes in a SavedModel that TensorFlow would take memory or time for, before it finds that nothing stands behind them."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.python.framework import op_def_registry

from explaind_tf.errors import RunFormatError

# An operation that takes or returns a list of more tensors would be one of an unrolled loop of as many rounds.
_MOST_TENSORS = 10**5
# A constant of equal values is stored as one of them. A mask of attention for 8,192 positions has as many bytes.
_MOST_BYTES = 2**28
# All of them together.
_MOST_BYTES_OF_ALL = 2**30
# The lists in which a constant may store its values, and how many numbers of a list are one value.
_STORED = {
    **dict.fromkeys(("half_val", "float_val", "double_val", "int_val", "int64_val", "bool_val"), 1),
    **dict.fromkeys(("uint32_val", "uint64_val", "string_val"), 1),
    **dict.fromkeys(("scomplex_val", "dcomplex_val"), 2),
}


def check_sizes(saved: SavedModel, where: str) -> None:
    """Check the sizes that a SavedModel states.

    Parameters
    ----------
    saved : SavedModel
        The message that its file holds.
    where : str
        The file, for messages.

    Raises
    ------
    RunFormatError
        If an operation states a size that cannot be. The message names it.
    """
    total = 0
    for node in _nodes(saved):
        try:
            total += _checked(node)
            if total > _MOST_BYTES_OF_ALL:
                raise ValueError(
                    f"with those before it, its constants have {total:,} bytes that are not stored"
                )
        except ValueError as error:
            raise RunFormatError(
                f"{where}: operation {node.name!r} ({node.op}) cannot be: {error}. Restore it from a copy."
            ) from None


def _nodes(saved: SavedModel) -> Iterator[Any]:
    for meta in saved.meta_graphs:
        yield from meta.graph_def.node
        for function in meta.graph_def.library.function:
            yield from function.node_def


def _checked(node: Any) -> int:
    """Return the bytes of the constants of an operation that are not stored, after a check of its sizes."""
    missing = 0
    # TensorFlow ends the process at a constant of another type than its operation's.
    if node.op == "Const" and node.attr["value"].tensor.dtype != node.attr["dtype"].type:
        raise ValueError(
            f"its type has the number {node.attr['dtype'].type}, and that of its value {node.attr['value'].tensor.dtype}"
        )
    for name, value in node.attr.items():
        if (
            value.WhichOneof("value") == "i"
            and name in _counts(node.op)
            and not 0 <= value.i <= _MOST_TENSORS
        ):
            raise ValueError(
                f"{name}={value.i} is a number of tensors, and must be from 0 to {_MOST_TENSORS}"
            )
        for tensor in (value.tensor, *value.list.tensor):
            missing += _not_stored(tensor)
    return missing


@lru_cache(maxsize=4096)
def _counts(op: str) -> frozenset[str]:
    """Return the attributes of an operation that count tensors which it takes or returns."""
    definition = op_def_registry.get(op)
    if definition is None:
        return frozenset()
    return frozenset(arg.number_attr for arg in (*definition.input_arg, *definition.output_arg)) - {""}


def _not_stored(tensor: Any) -> int:
    """Return how many bytes more than the file has of it a constant takes."""
    sizes = [dim.size for dim in tensor.tensor_shape.dim]
    if any(size < 0 for size in sizes):
        raise ValueError(f"a constant of it has the shape {sizes[:8]}; sizes must be from 0")
    if not tensor.dtype:
        return 0
    try:
        itemsize = max(1, tf.dtypes.as_dtype(tensor.dtype).size)
    except TypeError:
        raise ValueError(f"a constant of it has an unknown type, number {tensor.dtype}") from None
    _check_stored(tensor, sizes, itemsize)
    missing = math.prod(sizes) * itemsize - tensor.ByteSize()
    if missing > _MOST_BYTES:
        raise ValueError(
            f"a constant of it has the shape {sizes[:8]}, of which {missing:,} bytes are not stored"
        )
    return max(0, missing)


def _check_stored(tensor: Any, sizes: list[int], itemsize: int) -> None:
    """Refuse a constant that stores more values than its shape has. Fewer are allowed: the last one is repeated."""
    count = math.prod(sizes)
    stored = max(len(getattr(tensor, name)) / each for name, each in _STORED.items())
    if stored > count:
        raise ValueError(f"a constant of it has the shape {sizes[:8]} and stores {stored:g} values")
    content = len(tensor.tensor_content)
    if content and tensor.dtype != tf.string.as_datatype_enum and content != count * itemsize:
        raise ValueError(
            f"a constant of it has the shape {sizes[:8]}, which takes {count * itemsize} bytes, and stores {content}"
        )
