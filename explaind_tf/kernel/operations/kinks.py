"""Operations with kinks (non-smooth points), differentiated by their mean slope over a piece of a step.

Within a step the slope of a ReLU jumps, from 0 to 1 say, where its input crosses zero. A quadrature node sees one of the
two slopes, so its error falls only in proportion to the piece that it stands for. But the input of a ReLU is almost linear
in t over a short piece. The *mean* of its slope is then known without finding the kink:

    ∫ relu′(x(t)) dt / (t₁ − t₀) = (relu(x(t₁)) − relu(x(t₀))) / (x(t₁) − x(t₀)).

A maximum passes its gradient to the largest of its elements. Let that be i at one end of the piece and j at the other. It
changes where x_i and x_j cross. With d₀ = x_i − x_j at the start and d₁ = x_j − x_i at the end, i is the largest for the
share s = d₀ / (d₀ + d₁) of the piece.

Backward passes that use these mean slopes see no jump, and the error falls as if the model were smooth. If no kink is
crossed, the mean slope is the slope. The larger of two tensors is a maximum of two elements, and hard_swish and its like are
made of ReLU6. Averaging takes two more forward passes per node. It does not cover kinks within loops, or two kinks crossed
in one piece (a ReLU6 from below 0 to above 6, a third element that is the largest in between).
"""

from collections.abc import Callable, Iterable, Sequence

import tensorflow as tf

from explaind_tf.kernel.operations.mean_slopes import PullBack, is_kinked, mean_slope

Function = Callable[[Sequence[tf.Tensor]], tf.Tensor]


def has_kinks(output: tf.Tensor, point: tf.Tensor) -> bool:
    """Return whether the derivative of an output by a point passes through a kink that can be averaged."""
    of_point = {point.name}
    for operation in output.graph.get_operations():
        if of_point.intersection(tensor.name for tensor in operation.inputs):
            of_point.update(tensor.name for tensor in operation.outputs)
    seen: set[str] = set()
    left = [output.op]
    while left:
        operation = left.pop()
        # Behind a stop there is almost always the largest of some numbers, which only prevents overflow.
        if operation.name in seen or operation.type == "StopGradient":
            continue
        seen.add(operation.name)
        if is_kinked(operation) and any(tensor.name in of_point for tensor in operation.inputs):
            return True
        left.extend(tensor.op for tensor in operation.inputs)
    return False


def averaged(
    function: Function,
    variables: Sequence[tf.Tensor],
    ends: Callable[[], tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]],
    has_length: tf.Tensor,
) -> tf.Tensor:
    """Return ``function(variables)`` with derivatives that use mean slopes over a piece of the path.

    Parameters
    ----------
    function : callable
        Adds operations to the graph.
    variables : sequence of tf.Tensor
        The variables at the node.
    ends : callable
        Returns what :func:`read_by_kinks` finds among the operations that the same function adds at both ends of the
        piece. It is only called if there are kinks.
    has_length : tf.Tensor
        Whether there is such a piece. If not, slopes are those at the node, and the ends are not evaluated.
    """
    outputs, kinked = _built(function, variables)
    if not kinked:
        return outputs

    def over_piece() -> list[list[tf.Tensor]]:
        lower, upper = (_by_operation(kinked, end) for end in ends())
        return [
            mean_slope(own).over_piece(own, first, last)
            for own, first, last in zip(kinked, lower, upper, strict=True)
        ]

    def at_node() -> list[list[tf.Tensor]]:
        return [mean_slope(own).at_node(own) for own in kinked]

    for operation, slope in zip(kinked, tf.cond(has_length, over_piece, at_node), strict=True):
        _obey(operation, mean_slope(operation).pull_back(operation, slope))
    return outputs


def read_by_kinks(operations: Iterable[tf.Operation]) -> list[tf.Tensor]:
    """Return what those of some operations read that have kinks, in order."""
    return [tensor for operation in operations if is_kinked(operation) for tensor in operation.inputs]


def _by_operation(kinked: Sequence[tf.Operation], read: Sequence[tf.Tensor]) -> list[list[tf.Tensor]]:
    """Return what is read at an end, by operation."""
    left = iter(read)
    return [[next(left) for _ in operation.inputs] for operation in kinked]


def _built(function: Function, variables: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Operation]]:
    """Return what a function returns, and the kinked operations that it adds, in order."""
    graph = tf.compat.v1.get_default_graph()
    before = len(graph.get_operations())
    outputs = function(variables)
    return outputs, [operation for operation in graph.get_operations()[before:] if is_kinked(operation)]


def _obey(operation: tf.Operation, pull_back: PullBack) -> None:
    """Give an operation another gradient."""
    operation._gradient_function = lambda _, upstream: pull_back(upstream)
