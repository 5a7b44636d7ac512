"""Uses: the operations in a graph that read both variables and examples.

A *use* is an operation that reads one tensor computed from variables alone and one computed from examples: ``x @ W``,
``conv(x, W)``, ``x + b``, ``E[tokens]``. A variable influences an example only through its uses. The gradient of one
example is therefore a small product: of what the operation read, and of the gradient with respect to what it returned.
Uses are found in the graph itself. No layer is known here, so a hand-written matrix product is as good as a Dense layer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

# Operations that only rearrange the elements of one tensor.
_RESHAPES = ("Reshape", "ExpandDims", "Squeeze")


class NotCoveredError(Exception):
    """Raised if an operation that reads a variable and examples has no rule: examples are then differentiated one by one."""


@dataclass(frozen=True)
class Use:
    """An operation that reads ``source``, computed from variables alone, as its input number ``index``."""

    operation: tf.Operation
    index: int

    @property
    def source(self) -> tf.Tensor:
        """The input that is computed from variables."""
        return self.operation.inputs[self.index]

    @property
    def output(self) -> tf.Tensor:
        """What the operation returns."""
        return self.operation.outputs[0]

    @property
    def other(self) -> tf.Tensor:
        """The input that is computed from examples, for an operation that reads two tensors."""
        return self.operation.inputs[1 - self.index]

    def again(self, others: dict[int, tf.Tensor]) -> tf.Tensor:
        """Return the operation with some of its inputs replaced, by their number."""
        inputs = [others.get(index, tensor) for index, tensor in enumerate(self.operation.inputs)]
        arguments: dict[str, Any] = {
            spec.name: value for spec, value in zip(self.operation.op_def.input_arg, inputs, strict=True)
        }
        for spec in self.operation.op_def.attr:
            if spec.type != "type":
                value = self.operation.get_attr(spec.name)
                arguments[spec.name] = value.decode() if isinstance(value, bytes) else value
        return getattr(tf.raw_ops, self.operation.type)(**arguments)


def find_uses(outputs: tf.Tensor, variables: Sequence[tf.Tensor], examples: Sequence[tf.Tensor]) -> list[Use]:
    """Return every use of the variables and examples on which the outputs depend."""
    # By name, which is unique in a graph: TensorFlow may wrap one tensor in several Python objects.
    of_examples = {tensor.name for tensor in examples}
    of_variables = {tensor.name for tensor in variables}
    uses = []
    for operation in _in_order(outputs, {*of_examples, *of_variables}):
        reads = [tensor.name for tensor in operation.inputs]
        carriers = [tensor.name for tensor in operation.outputs if _carries_derivatives(tensor)]
        if of_examples.intersection(reads):
            of_examples.update(tensor.name for tensor in operation.outputs)
            if not carriers:  # a comparison with a variable, say
                continue
            uses += [
                Use(operation, index)
                for index, key in enumerate(reads)
                if key in of_variables and key not in of_examples
            ]
        elif of_variables.intersection(reads):
            of_variables.update(carriers)
    return uses


def _carries_derivatives(tensor: tf.Tensor) -> bool:
    """Return whether derivatives can pass a tensor: they pass lists of tensors, but not shapes, for example."""
    return not (tensor.dtype.is_integer or tensor.dtype.is_bool or tensor.dtype == tf.string)


def _in_order(outputs: tf.Tensor, leaves: set[str]) -> Iterator[tf.Operation]:
    """Yield the operations between leaves and outputs, each after those that it reads."""
    seen: set[str] = set()
    stack: list[tuple[tf.Tensor, bool]] = [(outputs, False)]
    while stack:
        tensor, is_ready = stack.pop()
        operation = tensor.op
        if is_ready:
            yield operation
        elif tensor.name not in leaves and operation.name not in seen:
            seen.add(operation.name)
            stack.append((tensor, True))
            stack.extend((source, False) for source in operation.inputs)


@dataclass(frozen=True)
class Rearrangement:
    """How a tensor is a variable with its elements in another order.

    Attributes
    ----------
    variable : int
        Which one.
    operations : tuple of tf.Operation
        From the variable to the tensor.
    """

    variable: int
    operations: tuple[tf.Operation, ...]

    def rearrange(self, rows: tf.Tensor) -> tf.Tensor:
        """Apply the operations to each row (F, *variable)."""
        for operation in self.operations:
            rows = _each_row(rows, operation, operation.outputs[0].shape, invert=False)
        return rows

    def undo(self, rows: tf.Tensor) -> tf.Tensor:
        """Return rows (K, *tensor) in the order of the variable."""
        for operation in reversed(self.operations):
            rows = _each_row(rows, operation, operation.inputs[0].shape, invert=True)
        return rows


def rearrangement(tensor: tf.Tensor, variables: Sequence[tf.Tensor]) -> Rearrangement | None:
    """Return how a tensor is one variable rearranged, or None if it is something else."""
    positions = {variable.name: index for index, variable in enumerate(variables)}
    operations: list[tf.Operation] = []
    while tensor.name not in positions:
        operation = tensor.op
        known = operation.type in ("Identity", *_RESHAPES) or _permutation(operation) is not None
        ends = (operation.inputs[0], operation.outputs[0]) if known else ()
        if not known or not all(end.shape.is_fully_defined() for end in ends):
            return None
        if operation.type != "Identity":
            operations.append(operation)
        tensor = operation.inputs[0]
    return Rearrangement(positions[tensor.name], tuple(reversed(operations)))


def _permutation(operation: tf.Operation) -> list[int] | None:
    order = tf.get_static_value(operation.inputs[1]) if operation.type == "Transpose" else None
    return None if order is None else [int(axis) for axis in order]


def _each_row(rows: tf.Tensor, operation: tf.Operation, shape: tf.TensorShape, *, invert: bool) -> tf.Tensor:
    order = _permutation(operation)
    if order is None:
        return tf.reshape(rows, tf.concat([tf.shape(rows)[:1], shape.as_list()], axis=0))
    if invert:
        order = [order.index(axis) for axis in range(len(order))]
    return tf.transpose(rows, [0, *(axis + 1 for axis in order)])
