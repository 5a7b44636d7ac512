"""Operations whose value jumps: their derivative is zero or does not exist, yet predictions move through them.

A function with jumps is not the integral of its derivative. What it jumped in a step is known from forward passes alone:
:mod:`explaind_tf.kernel.quadrature.refinement` closes in on it.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import tensorflow as tf

_ROUNDING = (
    "Round",
    "Rint",
    "Floor",
    "Ceil",
    "Sign",
    "FloorDiv",
    "FloorMod",
    "Mod",
    "TruncateDiv",
    "TruncateMod",
)
_COMPARISONS = ("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual", "ApproximateEqual")
_QUANTISING = (
    "FakeQuantWithMinMaxArgs",
    "FakeQuantWithMinMaxVars",
    "FakeQuantWithMinMaxVarsPerChannel",
    "QuantizeAndDequantizeV2",
    "QuantizeAndDequantizeV3",
    "QuantizeAndDequantizeV4",
)
_CHOICES = ("ArgMax", "ArgMin", "TopK", "TopKV2", "InTopK", "InTopKV2", "Bucketize", "NonMaxSuppressionV4")
_JUMPING = frozenset((*_ROUNDING, *_QUANTISING, *_COMPARISONS, *_CHOICES))
_FLOATING = frozenset(t.as_datatype_enum for t in (tf.float16, tf.bfloat16, tf.float32, tf.float64))
# Operations that tell something of a tensor that its values do not change.
_OF_SHAPE = ("Shape", "ShapeN", "Size", "Rank", "ZerosLike", "OnesLike")


def may_jump(output: tf.Tensor, point: tf.Tensor) -> bool:
    """Return whether an output depends on the values of a point through an operation that jumps."""
    reached = {point.name}
    jumping: set[str] = set()
    for operation in output.graph.get_operations():  # in an order in which they can run
        read = {tensor.name for tensor in operation.inputs}
        if operation.type in _OF_SHAPE or not reached & read:
            continue
        made = [tensor.name for tensor in operation.outputs]
        reached.update(made)
        if jumping & read or _jumps(operation):
            jumping.update(made)
    return output.name in jumping


def that_jump(operations: Sequence[tf.Operation], moving: Collection[str]) -> list[tf.Operation]:
    """Return the operations whose own value may jump while what they read moves on: those that round, or obey a choice.

    Parameters
    ----------
    operations : sequence of tf.Operation
        In an order in which they can run.
    moving : collection of str
        Names of the floating-point tensors that move.
    """
    chosen: set[str] = set()
    found = []
    for operation in operations:
        read = {tensor.name for tensor in operation.inputs}
        if operation.type in _OF_SHAPE or not (read & chosen or read.intersection(moving)):
            continue
        chosen.update(tensor.name for tensor in operation.outputs if tensor.name not in moving)
        if read & chosen or _jumps(operation):
            found.append(operation)
    return found


def _jumps(operation: tf.Operation) -> bool:
    if operation.type == "Cast":
        source, made = operation.inputs[0].dtype, operation.outputs[0].dtype
        return source.is_floating and not made.is_floating
    if operation.type in _JUMPING:
        # Loops count, and compare their counts.
        return any(tensor.dtype.is_floating for tensor in operation.inputs)
    return any(_JUMPING.intersection(_types(function)) for function in _functions(operation))


def _functions(operation: tf.Operation) -> Iterator[Any]:
    """Yield the definitions of a loop's functions, or of branches."""
    for value in operation.node_def.attr.values():
        for function in (value.func, *value.list.func):
            found = operation.graph._get_function(function.name) if function.name else None
            if found is not None:
                yield found.cached_definition


def _types(definition: Any) -> Iterator[str]:
    """Yield the types of a function's operations on floating-point numbers."""
    return (node.op for node in definition.node_def if any(v.type in _FLOATING for v in node.attr.values()))
