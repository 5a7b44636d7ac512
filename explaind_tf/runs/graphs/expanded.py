"""Graphs with the functions that they call expanded into them."""

import itertools
from typing import Any, NamedTuple

import tensorflow as tf

# TensorFlow has no public API for these.
from tensorflow.python.eager import context
from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

from explaind_tf.runs.graphs.graph_nodes import all_nodes, arguments_and_results, copied
from explaind_tf.runs.graphs.inlined_calls import CALLS, XLA, with_inlined_calls

# Numbers the graphs that are made to be expanded.
_COPIES = itertools.count()


def has_calls(concrete: Any) -> list[str]:
    """Return the function calls that cannot be expanded and therefore cannot be differentiated."""
    return [node.name for node in expanded(concrete).graph_def.node if node.op in CALLS]


class Expanded(NamedTuple):
    """A graph, and the names of the tensors that are its arguments and results."""

    graph_def: Any
    inputs: list[str]
    outputs: list[str]


def expanded(concrete: Any) -> Expanded:
    """Return the graph of a function, with the functions that it calls expanded into it.

    A ``tf.function`` within a model is a call. Once it was loaded from a file, it cannot be differentiated. Loops and
    branches stay as they are, but call nothing either.
    """
    graph_def = concrete.graph.as_graph_def()
    if any(node.op in CALLS for node in graph_def.node):
        if _can_leave_xla(graph_def):
            concrete = _without_xla(concrete, graph_def)
        graph_def = _run_inline_graph_optimization(
            concrete, lower_control_flow=False, aggressive_inlining=True
        )
    return Expanded(with_inlined_calls(graph_def), *arguments_and_results(concrete))


def _can_leave_xla(graph_def: Any) -> bool:
    """Return whether a graph has functions that only XLA compiles, and TensorFlow's own kernels could compute them."""
    nodes = list(all_nodes(graph_def))
    only_xla = any(node.op == "Conv3D" and node.attr["data_format"].s == b"NCDHW" for node in nodes)
    return not only_xla and any(XLA in node.attr for node in nodes)


def _without_xla(concrete: Any, graph_def: Any) -> Any:
    """Return a function whose calls may be expanded: those that XLA has to compile are not.

    What the function captured becomes its last arguments. Keras compiles grouped convolutions so, because TensorFlow has no
    gradients of them on processors.
    """
    copy = copied(graph_def)
    for owner in (*all_nodes(copy), *copy.library.function):
        for attribute in (XLA, "_noinline"):
            owner.attr.pop(attribute, None)
    # The copies are registered under names that no other function has.
    copy = with_own_functions(copy, f"_{next(_COPIES)}")
    inputs, outputs = arguments_and_results(concrete)

    def call(*arguments: tf.Tensor) -> list[tf.Tensor]:
        found: list[tf.Tensor] = tf.graph_util.import_graph_def(
            copy, dict(zip(inputs, arguments, strict=True)), outputs, name=""
        )
        return found

    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, f"argument_{place}")
        for place, tensor in enumerate(concrete.inputs)
    ]
    return tf.function(call, input_signature=specs, autograph=False).get_concrete_function()


def with_own_functions(graph_def: Any, suffix: str) -> Any:
    """Return a copy of a graph whose library functions (bodies of loops, branches) have unique names.

    The gradient of a loop replaces the loop's functions by new ones with derived names. For two copies of one recurrent
    layer, these names would clash ("duplicate function … _rewritten").
    """
    if not graph_def.library.function:
        return graph_def
    copy = copied(graph_def)
    own = {function.signature.name for function in copy.library.function}
    for node in all_nodes(copy):
        if node.op in own:
            node.op += suffix
        for value in node.attr.values():
            for reference in (value.func, *value.list.func):
                if reference.name in own:  # writing into any other value would turn it into a function
                    reference.name += suffix
    for function in copy.library.function:
        function.signature.name += suffix
        # Importing a graph does not register its functions with the runtime: only loading a model does.
        context.context().add_function_def(function)
    for gradient in copy.library.gradient:
        gradient.function_name += suffix if gradient.function_name in own else ""
        gradient.gradient_func += suffix if gradient.gradient_func in own else ""
    return copy
