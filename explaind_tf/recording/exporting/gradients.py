"""Custom gradients of losses, exported as functions of their own: training obeyed them, so the ledger must."""

from typing import Any

import tensorflow as tf

from explaind_tf.runs.graphs.custom_gradients import (
    GradientGraph,
    gradient_graphs,
    has_custom_gradients,
    with_recorded_gradients,
    without_registered,
)
from explaind_tf.runs.graphs.loaded import InlinedFunction


def with_own_gradients(name: str, function: Any) -> tuple[Any, dict[str, Any]]:
    """Return a function whose custom gradients are functions, too, and these by name.

    Parameters
    ----------
    name : str
        Name of the function.
    function : tf.function
        A function of one signature.
    """
    concrete = function.get_concrete_function()
    if not has_custom_gradients(concrete.graph):
        return function, {}
    found = gradient_graphs(concrete.graph)
    names = {operation: f"{name}_{number}" for number, operation in enumerate(found)}
    graphs = {names[operation]: _inlined(own) for operation, own in found.items()}
    inlined = InlinedFunction(
        with_recorded_gradients(concrete.graph, found, names),
        [tensor.name for tensor in concrete.inputs],
        [tensor.name for tensor in concrete.outputs],
        list(concrete.captured_inputs),
        graphs,
    )
    exported = tf.function(inlined.__call__, input_signature=function.input_signature, autograph=False)
    return exported, {
        names[operation]: _exported(own, graphs[names[operation]]) for operation, own in found.items()
    }


def _inlined(own: GradientGraph) -> InlinedFunction:
    inputs, outputs = ([tensor.name for tensor in part] for part in (own.graph.inputs, own.graph.outputs))
    graph_def = without_registered(own.graph.as_graph_def())
    for node in graph_def.node:
        # A wait for an input would be one for its placeholder. Pure functions need no order.
        kept = [source for source in node.input if not source.startswith("^")]
        node.input[:] = kept
    return InlinedFunction(graph_def, inputs, outputs, [])


def _exported(own: GradientGraph, inlined: InlinedFunction) -> Any:
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, f"argument_{i}")
        for i, tensor in enumerate(own.graph.inputs)
    ]
    return tf.function(inlined.__call__, input_signature=signature, autograph=False)
