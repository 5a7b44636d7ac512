"""Training steps that Keras compiled before the recording began.

Keras goes on with a compiled step until ``compile()`` is called again, whatever was changed in the model since, for
example ``layer.trainable``. The recording compiles the step anew, so it must see that nothing was.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.optimizers.ring_buffer import NOTES

# Operations that only connect others. Watching a step adds some of them.
_CONNECTIONS = frozenset(
    (
        "Placeholder",
        "Identity",
        "NoOp",
        "PartitionedCall",
        "StatefulPartitionedCall",
        "PyFunc",
        "EagerPyFunc",
    )
)


class EarlierSteps:
    """The steps that a train function has compiled so far.

    Parameters
    ----------
    train_function : callable or None
        Keras' train function of a model.
    """

    def __init__(self, train_function: Any) -> None:
        found = [f for f in _compiled_functions(train_function) if f.__name__ == "one_step_on_data"]
        self._steps = [step for f in found for step in f._list_all_concrete_functions()]

    def refuse_other(self, data: Any, graph: Any) -> None:
        """Refuse a step that was compiled anew, if Keras would go on with an earlier one that differs.

        Parameters
        ----------
        data
            What the step receives.
        graph : tf.Graph
            The graph of the new step, as far as it is traced.

        Raises
        ------
        RefusedError
            If they differ.
        """
        # TensorFlow compiles a step twice if it creates variables. The first graph then holds their initialisation, too.
        earlier = [_operations(step.graph) for step in self._steps if _takes(step, data)]
        if earlier and _operations(graph) not in earlier:
            raise RefusedError(
                "The model was trained before, and Keras goes on with the training step that it compiled then. Compiled "
                "now, the step would be another one: something that it depends on was changed since, such as "
                "layer.trainable. Call model.compile(...) again before fit(), so that the change takes effect; or undo it."
            )


def _compiled_functions(function: Any) -> Iterator[Any]:
    """Yield the ``tf.function`` objects that a Python function holds on to, and those that they wrap."""
    for cell in getattr(function, "__closure__", None) or ():
        held = cell.cell_contents
        if hasattr(held, "experimental_get_tracing_count"):
            yield held
            yield from _compiled_functions(held.python_function)
        elif getattr(held, "__closure__", None):
            yield from _compiled_functions(held)


def _takes(step: Any, data: Any) -> bool:
    """Return whether Keras would call a compiled step with such data."""
    (expected, *_), _ = step.structured_input_signature
    found = [tf.TensorSpec.from_tensor(tensor) for tensor in tf.nest.flatten(data)]
    specs = tf.nest.flatten(expected)
    return len(specs) == len(found) and all(
        a.is_compatible_with(b) for a, b in zip(specs, found, strict=True)
    )


def _operations(graph: Any) -> Counter[tuple[str, bytes]]:
    """Return how often a graph and its functions hold each operation, and each constant."""
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    return Counter(
        (node.op, node.attr["value"].SerializeToString() if node.op == "Const" else b"")
        for node in nodes
        if node.op not in _CONNECTIONS and NOTES not in node.name
    )
