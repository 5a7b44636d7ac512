"""Operations with kinks, differentiated by their mean slope over a piece of a step.

Within a step the slope of a ReLU jumps, from 0 to 1 say, where what it reads crosses zero. A node sees one of the two, and
its error falls only like the piece that it stands for. But what a ReLU reads is almost linear in t over a short piece,
and then the *mean* of its slope is known without finding the kink:

    ∫ relu′(x(t)) dt / (t₁ − t₀) = (relu(x(t₁)) − relu(x(t₀))) / (x(t₁) − x(t₀)).

A maximum passes its gradient on to the largest of its elements. If that is i at one end and j at the other, it changes
over where x_i and x_j cross: i is the largest for the share s = d₀ / (d₀ + d₁) of the piece, d₀ = x_i − x_j at its start and
d₁ = x_j − x_i at its end.

Backward passes that use both see no jump, and the error falls as if the model were smooth. Where no kink is crossed, the
mean slope is the slope. It takes two more forward passes a node. Kinks of other operations, those within loops, and two that
are crossed in one piece (a ReLU6 from below 0 to above 6, a third element that is the largest in between) stay.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from explaind_tf.kernel.operations.mean_slopes import is_kinked, mean_slope

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
        if operation.name in seen or operation.type == "StopGradient":
            continue
        seen.add(operation.name)
        if is_kinked(operation) and operation.inputs[0].name in of_point:
            return True
        left.extend(tensor.op for tensor in operation.inputs)
    return False


def averaged(
    function: Function,
    variables: Sequence[tf.Tensor],
    ends: Callable[[], tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]],
    has_length: tf.Tensor,
) -> tf.Tensor:
    """Return ``function(variables)``, whose derivatives use mean slopes over a piece of the path.

    Parameters
    ----------
    function : callable
        Adds the same operations to the graph whenever it is called.
    variables : sequence of tf.Tensor
        Those at the node.
    ends : callable
        Returns those at both ends of the piece.
    has_length : tf.Tensor
        Whether there is such a piece; otherwise slopes are those at the node, and the ends are not looked at.
    """
    outputs, kinked = _built(function, variables)
    if not kinked:
        return outputs

    def over_piece() -> list[list[tf.Tensor]]:
        lower, upper = (_built(function, end)[1] for end in ends())
        return [
            mean_slope(own).over_piece(own, first.inputs[0], last.inputs[0])
            for own, first, last in zip(kinked, lower, upper, strict=True)
        ]

    def at_node() -> list[list[tf.Tensor]]:
        return [mean_slope(own).at_node(own) for own in kinked]

    for operation, slope in zip(kinked, tf.cond(has_length, over_piece, at_node), strict=True):
        outputs = _replaced(operation, mean_slope(operation).pull_back(operation, slope), outputs)
    return outputs


def _kinked(graph: tf.Graph) -> list[tf.Operation]:
    return [operation for operation in graph.get_operations() if is_kinked(operation)]


def _built(function: Function, variables: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Operation]]:
    """Return what a function returns, and the kinked operations that it adds, in the order in which it does."""
    graph = tf.compat.v1.get_default_graph()
    before = len(_kinked(graph))
    outputs = function(variables)
    return outputs, _kinked(graph)[before:]


def _replaced(
    operation: tf.Operation, pull_back: Callable[[tf.Tensor], tf.Tensor], outputs: tf.Tensor
) -> tf.Tensor:
    """Let all that reads an operation read it with another gradient, and return what the outputs are then."""
    made = operation.outputs[0]
    readers = [
        (reader, index)
        for reader in made.consumers()
        for index, tensor in enumerate(reader.inputs)
        if tensor.name == made.name
    ]

    @tf.custom_gradient
    def passed(_: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return made, pull_back

    replacement = passed(operation.inputs[0])
    for reader, index in readers:
        # The one way to change a graph that is being built; TensorFlow's own loops are made by it.
        reader._update_input(index, replacement)
    return replacement if outputs.name == made.name else outputs
