"""Custom gradients of a traced graph, made part of the graph.

TensorFlow keeps a custom gradient as a Python function of the process that traced the graph. It is called for an
``IdentityN`` that stands between the function's results and their readers. Here its operations become a graph of their
own. What it reads of the graph around it becomes further inputs of the ``IdentityN``, so the two can be copied together.
"""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import tensorflow as tf

# TensorFlow has no public API for these.
from tensorflow.python.framework.func_graph import FuncGraph
from tensorflow.python.framework.ops import get_gradient_function

from explaind_tf.runs.graphs.graph_nodes import all_nodes, copied

# Attributes of a node: the name of its recorded gradient, the inputs whose gradients that gives, and the number of inputs
# that the operation had before it was given what its gradient reads.
_RECORDED, _PLACES, _OWN = "_recorded_gradient", "_recorded_places", "_recorded_own"
# TensorFlow's attribute for a gradient that is registered in the process.
REGISTERED = "_gradient_op_type"


class GradientGraph(NamedTuple):
    """A custom gradient as a graph.

    Attributes
    ----------
    graph : FuncGraph
        Its inputs are the gradients by all floating-point outputs of the operation, then what it reads of the graph around
        it. Its outputs are the gradients by some inputs of the operation.
    places : list of int
        Which inputs these are.
    """

    graph: Any
    places: list[int]

    @property
    def read(self) -> list[tf.Tensor]:
        """What it reads of the graph around it."""
        return list(self.graph.external_captures)


def has_custom_gradients(graph: tf.Graph) -> bool:
    """Return whether a graph, or a function that it uses, has a gradient that is registered in this process."""
    return any(REGISTERED in node.attr for node in all_nodes(graph.as_graph_def()))


def gradient_graphs(graph: tf.Graph, trained: Collection[tf.Tensor]) -> dict[str, GradientGraph]:
    """Return the custom gradients of a traced graph by the name of the operation.

    Left out are those within loops, branches and called functions, those that read anything but the graph, and those of
    functions that read trained tensors besides their arguments. In training these were variables, which TensorFlow gives a
    gradient. For tensors it has none, as for those that ``tf.recompute_grad`` reads.

    Parameters
    ----------
    graph : tf.Graph
        The graph.
    trained : collection of tf.Tensor
        The tensors of trained variables.
    """
    names = {tensor.name for tensor in trained}
    found = {
        operation.name: _traced(operation)
        for operation in graph.get_operations()
        if operation.type == "IdentityN" and REGISTERED in operation.node_def.attr
    }
    return {
        name: own
        for name, own in found.items()
        if all(tf.is_symbolic_tensor(tensor) for tensor in own.read)
        and not _reads_besides(graph.get_operation_by_name(name), own.places, names)
    }


def _reads_besides(operation: tf.Operation, arguments: list[int], names: Collection[str]) -> bool:
    """Return whether what a function computed depends on some tensors by another way than its arguments."""
    seen = {operation.inputs[place].name for place in arguments}
    left = [tensor for place, tensor in enumerate(operation.inputs) if place not in arguments]
    while left:
        tensor = left.pop()
        if tensor.name not in seen and tensor.dtype.is_floating:  # no derivative passes shapes, for example
            if tensor.name in names:
                return True
            seen.add(tensor.name)
            left.extend(tensor.op.inputs)
    return False


def _traced(operation: tf.Operation) -> GradientGraph:
    gradient, count = get_gradient_function(operation), len(operation.inputs)
    with operation.graph.as_default():
        graph = FuncGraph("custom_gradient")
    with graph.as_default():
        upstream = [
            tf.compat.v1.placeholder(made.dtype, made.shape) if made.dtype.is_floating else None
            for made in operation.outputs
        ]
        graph.inputs = [tensor for tensor in upstream if tensor is not None]
        found = gradient(operation, *upstream)
        found = [found] if tf.is_tensor(found) else list(found)
        places = [place for place, value in enumerate(found[:count]) if value is not None]
        graph.outputs = [graph.capture(tf.convert_to_tensor(found[place])) for place in places]
    return GradientGraph(graph, places)


def with_recorded_gradients(graph: tf.Graph, found: dict[str, GradientGraph], names: dict[str, str]) -> Any:
    """Return a traced graph's definition, in which operations name the recorded gradients instead of registered ones.

    Parameters
    ----------
    graph : tf.Graph
        The graph.
    found : dict
        The gradients, as :func:`gradient_graphs` returns them.
    names : dict
        Under what name each is recorded.
    """
    graph_def = without_registered(graph.as_graph_def())
    for node in graph_def.node:
        if node.name in found:
            read = found[node.name].read
            node.attr[_RECORDED].s = names[node.name].encode()
            node.attr[_PLACES].list.i.extend(found[node.name].places)
            node.attr[_OWN].i = len(node.input)
            node.input.extend(tensor.name for tensor in read)
            node.attr["T"].list.type.extend(tensor.dtype.as_datatype_enum for tensor in read)
            node.attr.pop("_output_shapes", None)
    return graph_def


def recorded_gradients(graph_def: Any) -> dict[str, str]:
    """Return the operations of a graph that have recorded gradients, with the names of these."""
    return {node.name: node.attr[_RECORDED].s.decode() for node in graph_def.node if _RECORDED in node.attr}


def without_registered(graph_def: Any) -> Any:
    """Return a copy of a graph without references to gradients that are registered in one process."""
    copy = copied(graph_def)
    for node in all_nodes(copy):
        node.attr.pop(REGISTERED, None)
    return copy


def obey(operation: tf.Operation, gradient: Callable[..., list[tf.Tensor]]) -> None:
    """Let derivatives through a copied operation use its recorded gradient.

    This is a property of the one operation. Nothing is registered.
    """
    places, own = list(operation.get_attr(_PLACES)), operation.get_attr(_OWN)

    def gradients(op: tf.Operation, *upstream: tf.Tensor | None) -> list[tf.Tensor | None]:
        given = [tensor for tensor in upstream[:own] if tensor is not None]
        found: list[tf.Tensor | None] = [None] * len(op.inputs)
        for place, value in zip(places, gradient(*given, *op.inputs[own:]), strict=True):
            found[place] = value
        return found

    operation._gradient_function = gradients
