"""Functions without the operations that their results do not need, such as updates of a metric within a layer."""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from explaind_tf.runs.graphs.graph_nodes import arguments_and_results, copied
from explaind_tf.runs.graphs.loaded import InlinedFunction


def pruned(function: Any) -> Any:
    """Return a function of one signature that reads only the variables which its results depend on.

    Parameters
    ----------
    function : tf.function
        A function of one signature.

    Returns
    -------
    tf.function
        The function itself if it reads no variables.
    """
    concrete = function.get_concrete_function()
    if not any(tensor.dtype == tf.resource for tensor in concrete.captured_inputs):
        return function
    inputs, outputs = arguments_and_results(concrete)
    count = len(inputs) - len(concrete.captured_inputs)
    needed = operations_behind(concrete.outputs) | {name.split(":")[0] for name in inputs[:count]}
    whole = concrete.graph.as_graph_def()
    graph_def = copied(whole)
    del graph_def.node[:]
    graph_def.node.extend(node for node in whole.node if node.name in needed)
    for node in graph_def.node:
        # Results do not depend on what is only waited for.
        node.input[:] = [
            source for source in node.input if not source.startswith("^") or source[1:] in needed
        ]
    captured = [
        (name, tensor)
        for name, tensor in zip(inputs[count:], concrete.captured_inputs, strict=True)
        if name.split(":")[0] in needed
    ]
    inlined = InlinedFunction(
        graph_def,
        [*inputs[:count], *(name for name, _ in captured)],
        outputs,
        [tensor for _, tensor in captured],
    )

    return made_again(function, inlined)


def made_again(function: Any, inlined: InlinedFunction) -> Any:
    """Return a function of the signature and the name of another one, made of a changed graph of it."""

    def call(*arguments: tf.Tensor) -> list[tf.Tensor]:
        return inlined(*arguments)

    call.__name__ = function.__name__  # its name in the SavedModel
    return tf.function(call, input_signature=function.input_signature, autograph=False)


def operations_behind(tensors: Iterable[tf.Tensor]) -> set[str]:
    """Return the names of the operations on which tensors depend."""
    found: set[str] = set()
    left = [tensor.op for tensor in tensors]
    while left:
        operation = left.pop()
        if operation.name not in found:
            found.add(operation.name)
            left.extend(tensor.op for tensor in operation.inputs)
    return found
