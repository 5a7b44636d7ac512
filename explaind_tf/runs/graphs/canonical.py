"""A digest of what a graph computes, whatever its nodes are called.

Keras numbers its layers and TensorFlow its functions, so two runs of one model hold graphs of other names. Graphs with
the same digest compute the same, and what was compiled for one serves the other. The reverse does not hold: graphs that
do the same by other operations have other digests.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from explaind_tf.runs.graphs.graph_nodes import all_nodes

# Attributes that name something outside of the graph: a registered gradient, a Python function, a shared resource.
_OUTSIDE = ("_gradient_op_type", "token", "shared_name", "container")
# Attributes that say how a graph came to be or where it was placed, not what it computes.
_OF_NO_EFFECT = ("_output_shapes", "_class", "_user_specified_name")


def graph_digest(graph_def: Any, inputs: Iterable[str], outputs: Iterable[str]) -> str | None:
    """Return the digest of a graph as a function of tensors; None if it names something outside of the graph.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph, with the functions that its loops and branches are made of.
    inputs, outputs : iterable of str
        Names of tensors, ``"node:index"``, in order.

    Returns
    -------
    str or None
        64 hexadecimal digits.
    """
    if any(node.attr[name].s for node in all_nodes(graph_def) for name in _OUTSIDE if name in node.attr):
        return None
    functions = _Functions(graph_def.library.function)
    digest, numbers = hashlib.sha256(), _numbered(graph_def.node, {})
    for tensors in (inputs, outputs):
        _feed(digest, "tensors", *(_renamed(tensor, numbers) for tensor in tensors))
    _feed_nodes(digest, graph_def.node, numbers, functions)
    for gradient in graph_def.library.gradient:  # by name: what they are for is left to TensorFlow
        _feed(digest, "gradient", gradient.function_name, gradient.gradient_func)
    return digest.hexdigest()


class _Functions:
    """The digests of a graph's functions by name; each is computed when something refers to it."""

    def __init__(self, functions: Iterable[Any]) -> None:
        self._functions = {function.signature.name: function for function in functions}
        self._found: dict[str, str] = {}

    def digest(self, name: str) -> str | None:
        """Return a function's digest; None if there is no function of this name."""
        if name not in self._functions:
            return None
        if name not in self._found:
            self._found[name] = name  # a function that calls itself has no digest but its name
            self._found[name] = self._compute(self._functions[name])
        return self._found[name]

    def _compute(self, function: Any) -> str:
        arguments = [argument.name for argument in function.signature.input_arg]
        numbers = _numbered(function.node_def, {name: f"argument {k}" for k, name in enumerate(arguments)})
        digest = hashlib.sha256()
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            _feed(
                digest, "argument", str(argument.type), str(argument.type_attr), str(argument.type_list_attr)
            )
        for result in function.signature.output_arg:
            _feed(digest, "result", _renamed(function.ret[result.name], numbers))
        for node in sorted(function.control_ret.values()):
            _feed(digest, "control", _renamed(node, numbers))
        _feed_attributes(digest, function.attr, self)
        _feed_nodes(digest, function.node_def, numbers, self)
        return digest.hexdigest()


def _numbered(nodes: Iterable[Any], numbers: dict[str, str]) -> dict[str, str]:
    """Return what nodes are called in a digest: their places."""
    return numbers | {node.name: str(place) for place, node in enumerate(nodes)}


def _renamed(tensor: str, numbers: Mapping[str, str]) -> str:
    """Return a reference to a tensor or node, as ``"name:output:index"`` or ``"^name"``, by number."""
    control, name = ("^", tensor[1:]) if tensor.startswith("^") else ("", tensor)
    node, *rest = name.split(":")
    return ":".join([control + numbers[node], *rest])


def _feed_nodes(digest: Any, nodes: Iterable[Any], numbers: Mapping[str, str], functions: _Functions) -> None:
    for node in nodes:
        operation = functions.digest(node.op) or node.op
        _feed(digest, "node", operation, node.device, *(_renamed(name, numbers) for name in node.input))
        _feed_attributes(digest, node.attr, functions)


def _feed_attributes(digest: Any, attributes: Mapping[str, Any], functions: _Functions) -> None:
    for name in sorted(set(attributes) - set(_OF_NO_EFFECT)):
        value = attributes[name]
        referred = [value.func, *value.list.func] if value.HasField("func") or value.list.func else []
        if referred:
            _feed(digest, name, *(functions.digest(item.name) or item.name for item in referred))
            for item in referred:
                _feed_attributes(digest, item.attr, functions)
        else:
            _feed(digest, name, value.SerializeToString(deterministic=True))


def _feed(digest: Any, *parts: str | bytes) -> None:
    """Add parts, each with its length, so that no two lists of parts look the same."""
    digest.update(str(len(parts)).encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(f":{len(data)}:".encode())
        digest.update(data)
