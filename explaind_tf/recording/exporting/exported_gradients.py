"""Custom gradients of losses, exported as functions of their own: training obeyed them, so the ledger must."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from explaind_tf.recording.exporting.pruned import made_again
from explaind_tf.runs.graphs.custom_gradients import (
    GradientGraph,
    gradient_graphs,
    has_custom_gradients,
    with_recorded_gradients,
    without_registered,
)
from explaind_tf.runs.graphs.graph_nodes import arguments_and_results
from explaind_tf.runs.graphs.loaded import InlinedFunction


def with_own_gradients(
    name: str, function: Any, variables: Sequence[keras.Variable]
) -> tuple[Any, dict[str, Any]]:
    """Return a function whose custom gradients are functions, too, and these, traced, by name.

    Parameters
    ----------
    name : str
        Name of the function.
    function : tf.function
        A function of one signature.
    variables : sequence of keras.Variable
        The model's variables, whose values are the function's first arguments.
    """
    concrete = function.get_concrete_function()
    if not has_custom_gradients(concrete.graph):
        return function, {}
    values = list(zip(variables, concrete.inputs, strict=False))
    # A gradient may read variables when it is called.
    with keras.StatelessScope(state_mapping=values):
        found = gradient_graphs(concrete.graph, [tensor for _, tensor in values])
    names = {operation: f"{name}_{number}" for number, operation in enumerate(found)}
    graphs = {names[operation]: _inlined(own) for operation, own in found.items()}
    exported = _again(function, with_recorded_gradients(concrete.graph, found, names), graphs)
    return exported, {
        names[operation]: _exported(own, graphs[names[operation]]) for operation, own in found.items()
    }


def without_gradients(function: Any) -> Any:
    """Return a function of one signature without references to custom gradients of this process."""
    graph = function.get_concrete_function().graph
    if not has_custom_gradients(graph):
        return function
    return _again(function, without_registered(graph.as_graph_def()), {})


def _again(function: Any, graph_def: Any, gradients: dict[str, InlinedFunction]) -> Any:
    """Return a function of one signature made of a changed graph of it."""
    concrete = function.get_concrete_function()
    names, captured = arguments_and_results(concrete), list(concrete.captured_inputs)
    return made_again(function, InlinedFunction(graph_def, *names, captured, gradients))


def _inlined(own: GradientGraph) -> InlinedFunction:
    graph_def = without_registered(own.graph.as_graph_def())
    for node in graph_def.node:
        # A wait for an input would be one for its placeholder. Pure functions need no order.
        node.input[:] = [source for source in node.input if not source.startswith("^")]
    return InlinedFunction(graph_def, *arguments_and_results(own.graph), [])


def _exported(own: GradientGraph, inlined: InlinedFunction) -> Any:
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, f"argument_{i}")
        for i, tensor in enumerate(own.graph.inputs)
    ]
    exported = tf.function(inlined.__call__, input_signature=signature, autograph=False)
    return exported.get_concrete_function()
