"""The function that a graph computes, without what it tells automatic differentiation to do instead.

A ledger's identity is about the function itself: how far its value moved along the path. There, ``stop_gradient`` is the
identity, and a custom gradient is that of the operations under it. Only the gradients of losses obey both, since training
did (docs/theory.md, "Two derivatives").
"""

from typing import Any

from explaind_tf.runs.graphs.custom_gradients import without_registered

# Operations that are the identity, and stop derivatives.
_STOPS = ("StopGradient", "PreventGradient")


def seen_through(graph_def: Any) -> Any:
    """Return a graph of the same function whose derivative is that of its operations.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph, with the functions that its loops and branches are made of.
    """
    found = without_registered(graph_def)
    for nodes in (found.node, *(function.node_def for function in found.library.function)):
        for node in nodes:
            if node.op in _STOPS:
                node.op = "Identity"
                node.attr.pop("message", None)
    return found
