"""The function that a graph computes, without what it tells automatic differentiation to do instead.

A ledger's identity is about the function itself: how far its value moved along the path. There, ``stop_gradient`` is the
identity, and a custom gradient is that of the operations under it. What is quantised moves in jumps, and with its range.
Loops of which TensorFlow gets the gradient wrong have the right one. Only the gradients of losses obey all that, since
training did (docs/theory.md, "Two derivatives").
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from explaind_tf.runs.graphs.counted_loops import with_counted_loops
from explaind_tf.runs.graphs.custom_gradients import REGISTERED, without_registered
from explaind_tf.runs.graphs.empty_sums import with_derivative_of_empty_sums
from explaind_tf.runs.graphs.quantised import QUANTISED

# Operations that are the identity, and stop derivatives.
_STOPS = ("StopGradient", "PreventGradient")


def seen_through(graph_def: Any) -> Any:
    """Return a graph of the same function whose custom gradients, and stops within loops and branches, are taken out.

    Its loops count their rounds (:func:`with_counted_loops`), and sums of exponentials may be empty
    (:func:`with_derivative_of_empty_sums`). :func:`see_through` does the rest for the operations that are made of it. So
    these still show where training stopped.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph, with the functions that its loops and branches are made of.
    """
    found = with_counted_loops(without_registered(graph_def))
    with_derivative_of_empty_sums(found)
    for function in found.library.function:
        for node in function.node_def:
            if node.op in _STOPS:
                node.op = "Identity"
                node.attr.pop("message", None)
    return found


def see_through(operations: Iterable[tf.Operation]) -> None:
    """Let derivatives pass operations of a graph that is being built as those of the function that they compute."""
    for operation in operations:
        if operation.type in _STOPS or REGISTERED in operation.node_def.attr:
            operation._gradient_function = lambda _, *upstream: list(upstream)
        elif operation.type in QUANTISED:
            operation._gradient_function = QUANTISED[operation.type]
