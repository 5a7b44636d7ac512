"""Activations with a kink, differentiated by their mean slope over a piece of a step.

Within a step a ReLU's slope jumps, from 0 to 1 say, where what it reads crosses zero. A node sees one of the two, and its
error falls only like the piece that it stands for. But what a ReLU reads is almost linear in t over a short piece, and
then the *mean* of its slope is known without finding the kink:

    ∫ relu′(x(t)) dt / (t₁ − t₀) = (relu(x(t₁)) − relu(x(t₀))) / (x(t₁) − x(t₀)).

Backward passes that use it see no jump, and the error falls like the square of the piece, or faster, as if the model were
smooth. Where no kink is crossed the mean slope is the slope, to the bit. It takes two more forward passes a node.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

# Each reads one tensor, element by element.
_KINKED: dict[str, Callable[[tf.Operation, tf.Tensor], tf.Tensor]] = {
    "Relu": lambda operation, x: tf.nn.relu(x),
    "Relu6": lambda operation, x: tf.nn.relu6(x),
    "LeakyRelu": lambda operation, x: tf.nn.leaky_relu(x, operation.get_attr("alpha")),
}

Function = Callable[[Sequence[tf.Tensor]], tf.Tensor]


def has_kinks(graph: tf.Graph) -> bool:
    """Tell whether a graph has activations that can be averaged."""
    return bool(_kinked(graph))


def averaged(
    function: Function,
    variables: Sequence[tf.Tensor],
    ends: Callable[[], tuple[Sequence[tf.Tensor], Sequence[tf.Tensor]]],
    reaches: tf.Tensor,
) -> tf.Tensor:
    """Return ``function(variables)``, whose derivatives use mean slopes between both ends of a piece of the path.

    Parameters
    ----------
    function : callable
        Adds the same operations to the graph whenever it is called.
    variables : sequence of tf.Tensor
        Those at the node.
    ends : callable
        Returns those at both ends.
    reaches : tf.Tensor
        Whether the piece has a length; otherwise slopes are those at the node, and the ends are not looked at.
    """
    outputs, kinked = _built(function, variables)
    if not kinked:
        return outputs

    def mean_slopes() -> list[tf.Tensor]:
        lower, upper = (_built(function, end)[1] for end in ends())
        return [
            _mean_slope(own, first.inputs[0], last.inputs[0])
            for own, first, last in zip(kinked, lower, upper, strict=True)
        ]

    def slopes() -> list[tf.Tensor]:
        return [_slope(own, own.inputs[0]) for own in kinked]

    for operation, slope in zip(kinked, tf.cond(reaches, mean_slopes, slopes), strict=True):
        outputs = _replaced(operation, slope, outputs)
    return outputs


def _kinked(graph: tf.Graph) -> list[tf.Operation]:
    return [operation for operation in graph.get_operations() if operation.type in _KINKED]


def _built(function: Function, variables: Sequence[tf.Tensor]) -> tuple[tf.Tensor, list[tf.Operation]]:
    """Return what a function returns, and the kinked operations that it adds, in the order in which it does."""
    graph = tf.compat.v1.get_default_graph()
    before = len(_kinked(graph))
    outputs = function(variables)
    return outputs, _kinked(graph)[before:]


def _slope(operation: tf.Operation, x: tf.Tensor) -> tf.Tensor:
    (slope,) = tf.gradients(_KINKED[operation.type](operation, x), x)
    return slope


def _mean_slope(operation: tf.Operation, first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
    """Return the mean slope over a straight line between both ends."""
    function, middle = _KINKED[operation.type], operation.inputs[0]
    is_crossed = _slope(operation, first) != _slope(operation, last)
    run = tf.where(is_crossed, last - first, tf.ones_like(first))
    rise = function(operation, last) - function(operation, first)
    return tf.where(is_crossed, rise / run, _slope(operation, middle))


def _replaced(operation: tf.Operation, slope: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """Let all that reads an operation read it with another slope, and return what the outputs are then."""
    made = operation.outputs[0]
    readers = [
        (reader, index)
        for reader in made.consumers()
        for index, tensor in enumerate(reader.inputs)
        if tensor.name == made.name
    ]

    @tf.custom_gradient
    def passed(_: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        return made, lambda upstream: upstream * slope

    replacement = passed(operation.inputs[0])
    for reader, index in readers:
        # The one way to change a graph that is being built; TensorFlow's own loops are made by it.
        reader._update_input(index, replacement)
    return replacement if outputs.name == made.name else outputs
