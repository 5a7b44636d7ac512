"""Loops that count their rounds.

TensorFlow's gradient of a loop takes its first variable for the number of rounds, counted from zero, and its second one for
the largest number there may be. ``tf.while_loop`` puts both there. A loop that was made otherwise, as those within
``tf.nn.ctc_loss``, would have a wrong gradient without an error: zero, where it counts down.
"""

from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

from explaind_tf.runs.graphs.graph_nodes import copied

_LOOPS = ("While", "StatelessWhile")
# Names of what is added to a loop's functions, and to the names of functions and loops.
_COUNT, _LIMIT, _SUFFIX = "rounds_so_far", "rounds_at_most", "_counted"


def with_counted_loops(graph_def: Any) -> Any:
    """Return a graph whose loops have a count of their rounds, and a limit of it, as their first two variables.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph. It is returned as it is if all loops have.
    """
    functions = _functions(graph_def)
    groups = [graph_def.node, *(function.node_def for function in graph_def.library.function)]
    if not any(_uncounted(nodes, functions) for nodes in groups):
        return graph_def
    found = copied(graph_def)
    wanted: dict[str, bool] = {}
    for owner in (found, *found.library.function):
        nodes = owner.node if owner is found else owner.node_def
        for loop in _uncounted(nodes, functions):
            wanted |= {loop.attr["body"].func.name: True, loop.attr["cond"].func.name: False}
            nodes.extend(_replaced(loop, in_function=owner is not found))
    # The loops within these functions were replaced before.
    functions = _functions(found)
    found.library.function.extend(
        _counted(functions[name], is_body=is_body) for name, is_body in wanted.items()
    )
    return found


def _functions(graph_def: Any) -> dict[str, Any]:
    return {function.signature.name: function for function in graph_def.library.function}


def _uncounted(nodes: Collection[Any], functions: Mapping[str, Any]) -> list[Any]:
    """Return the loops among nodes that do not count their rounds."""
    by_name = {node.name: node for node in nodes}
    return [
        node
        for node in nodes
        if node.op in _LOOPS
        and not (
            _is_number(by_name.get(node.input[0].split(":")[0]), 0)
            and _counts(functions[node.attr["body"].func.name])
        )
    ]


def _counts(body: Any) -> bool:
    """Return whether the first variable grows by one in each round, and the second one stays."""
    arguments, results = body.signature.input_arg, body.signature.output_arg
    if len(arguments) < 2:
        return False
    by_name = {node.name: node for node in body.node_def}

    def source(tensor: str) -> str:
        """Return the operation or the argument that a tensor comes from."""
        name = tensor.split(":")[0]
        node = by_name.get(name)
        return source(node.input[0]) if node is not None and node.op == "Identity" else name

    count, limit = (source(body.ret[result.name]) for result in results[:2])
    added = by_name.get(count)
    if limit != arguments[1].name or added is None or added.op not in ("Add", "AddV2"):
        return False
    first, second = map(source, added.input[:2])
    return first == arguments[0].name and _is_number(by_name.get(second), 1)


def _is_number(node: Any, number: int) -> bool:
    """Return whether an operation is a certain integer."""
    if node is None or node.op != "Const":
        return False
    value = tf.make_ndarray(node.attr["value"].tensor)
    return bool(value.shape == () and value.dtype.kind == "i" and value == number)


def _counted(function: Any, *, is_body: bool) -> Any:
    """Return the body or the condition of a loop, which takes a count and a limit first; a body returns them, too."""
    found = copied(function)
    found.signature.name += _SUFFIX
    arguments, results = list(found.signature.input_arg), list(found.signature.output_arg)
    del found.signature.input_arg[:]
    for name in (_COUNT, _LIMIT):
        found.signature.input_arg.add(name=name, type=tf.int32.as_datatype_enum)
    found.signature.input_arg.extend(arguments)
    shifted = {place + 2: attributes for place, attributes in dict(function.arg_attr).items()}
    found.arg_attr.clear()
    for place, attributes in shifted.items():
        found.arg_attr[place].CopyFrom(attributes)
    if is_body:
        one = found.node_def.add(name=f"{_COUNT}/one", op="Const")
        one.CopyFrom(_integer(one.name, 1))
        added = found.node_def.add(name=f"{_COUNT}/add", op="AddV2", input=[_COUNT, f"{one.name}:output:0"])
        added.attr["T"].type = tf.int32.as_datatype_enum
        del found.signature.output_arg[:]
        for name, tensor in ((_COUNT, f"{added.name}:z:0"), (_LIMIT, _LIMIT)):
            found.signature.output_arg.add(name=f"{name}_next", type=tf.int32.as_datatype_enum)
            found.ret[f"{name}_next"] = tensor
        found.signature.output_arg.extend(results)
    return found


def _replaced(loop: Any, *, in_function: bool) -> list[Any]:
    """Turn a loop into its results alone, and return the counted loop that gives them, with what that reads.

    The results keep the names of the loop's own, so whatever reads them can stay as it is.
    """
    counted = copied(loop)
    counted.name += _SUFFIX
    numbers = [_integer(f"{counted.name}/{name}", value) for name, value in ((_COUNT, 0), (_LIMIT, -1))]
    suffix = ":output:0" if in_function else ""
    del counted.input[:]
    counted.input.extend([*(node.name + suffix for node in numbers), *loop.input])
    types = list(loop.attr["T"].list.type)
    del counted.attr["T"].list.type[:]
    counted.attr["T"].list.type.extend([tf.int32.as_datatype_enum] * 2 + types)
    shapes = [copied(shape) for shape in loop.attr["output_shapes"].list.shape]
    if shapes:
        del counted.attr["output_shapes"].list.shape[:]
        counted.attr["output_shapes"].list.shape.extend([tf.TensorShape([]).as_proto()] * 2 + shapes)
    for name in ("body", "cond"):
        counted.attr[name].func.name += _SUFFIX
    counted.attr.pop("_num_original_outputs", None)
    counted.attr.pop("_output_shapes", None)
    source = f"{counted.name}:output" if in_function else counted.name
    results = type(loop)(name=loop.name, op="IdentityN", device=loop.device)
    results.input.extend(f"{source}:{place + 2}" for place in range(len(types)))
    results.attr["T"].list.type.extend(types)
    loop.CopyFrom(results)
    return [*numbers, counted]


def _integer(name: str, value: int) -> Any:
    node = tf.compat.v1.NodeDef(name=name, op="Const")
    node.attr["dtype"].type = tf.int32.as_datatype_enum
    node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value, tf.int32))
    return node
