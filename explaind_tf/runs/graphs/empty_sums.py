"""The logarithm of a sum of exponentials that are all zero, with a derivative of zero.

Where all exponents are −∞, as in a row that is masked as a whole, the sum is 0 and its logarithm −∞. The chain rule gives
0 · ∞ there, which is NaN, and this NaN reaches whatever else depends on the exponents. The value stays −∞ around such a
point.
"""

from collections.abc import Iterator
from typing import Any


def with_derivative_of_empty_sums(graph_def: Any) -> None:
    """Replace logarithms of sums of exponentials in a graph and its functions by those with such a derivative.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph, which is changed. The operations keep their names.
    """
    _replace(graph_def.node, is_function=False)
    for function in graph_def.library.function:
        for name in _replace(function.node_def, is_function=True):
            _rename(function, f"{name}:y:0", f"{name}:output:0")


def _replace(nodes: Any, *, is_function: bool) -> list[str]:
    """Replace the logarithms among some nodes, and return their names."""
    by_name = {node.name: node for node in nodes}
    found = [node for node in by_name.values() if _is_of_exponentials(node, by_name)]
    added = [new for node in found for new in _replaced(node, is_function=is_function)]
    nodes.extend(added)
    return [node.name for node in found]


def _is_of_exponentials(node: Any, by_name: dict[str, Any]) -> bool:
    """Return whether an operation is the logarithm of a sum of exponentials."""
    for wanted in ("Log", "Sum"):
        if node is None or node.op != wanted:
            return False
        node = by_name.get(node.input[0].split(":")[0])
    return node is not None and node.op == "Exp"


def _replaced(log: Any, *, is_function: bool) -> Iterator[Any]:
    """Turn log(s) into where(s = 0, log(0), log(where(s = 0, 1, s))), and yield what that is made of."""
    made = type(log)

    def tensor(name: str, output: str) -> str:
        return f"{log.name}/{name}" + (f":{output}:0" if is_function else "")

    def node(name: str, op: str, *inputs: str) -> Any:
        found = made(name=f"{log.name}/{name}", op=op, input=inputs, device=log.device)
        found.attr["T"].CopyFrom(log.attr["T"])
        return found

    total = log.input[0]
    equal = node("is_empty", "Equal", total, tensor("zero", "y"))
    equal.attr["incompatible_shape_error"].b = True
    is_empty = tensor("is_empty", "z")
    yield node("zero", "ZerosLike", total)
    yield equal
    yield node("one", "OnesLike", total)
    yield node("positive", "SelectV2", is_empty, tensor("one", "y"), total)
    yield node("log", "Log", tensor("positive", "output"))
    yield node("of_zero", "Log", tensor("zero", "y"))
    type_of = log.attr["T"].type
    waits_for = [name for name in log.input if name.startswith("^")]
    log.CopyFrom(made(name=log.name, op="SelectV2", device=log.device))
    log.input.extend([is_empty, tensor("of_zero", "y"), tensor("log", "y"), *waits_for])
    log.attr["T"].type = type_of


def _rename(function: Any, old: str, new: str) -> None:
    """Let a function read and return another tensor."""
    for node in function.node_def:
        for place, tensor in enumerate(node.input):
            if tensor == old:
                node.input[place] = new
    for name, tensor in list(function.ret.items()):
        if tensor == old:
            function.ret[name] = new
