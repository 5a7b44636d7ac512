"""Calls within loops and branches, expanded into them.

TensorFlow's own expansion leaves some of them: the bodies of loops within functions that were called. Reverse mode builds
the gradient of a body from its operations, and has none for a call of a function that was loaded from a file.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from explaind_tf.runs.graphs.graph_nodes import copied

CALLS = ("PartitionedCall", "StatefulPartitionedCall")
XLA = "_XlaMustCompile"


def with_inlined_calls(graph_def: Any) -> Any:
    """Return a graph whose loops and branches call no functions, but those that only XLA compiles.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph. It is returned as it is if there are none.
    """
    if not any(_calls(graph_def)):
        return graph_def
    found = copied(graph_def)
    # Each pass replaces the outermost calls. What they called may call further functions.
    while calls := list(_calls(found)):
        functions = _functions(found)
        for caller, name in calls:
            (call,) = (copied(node) for node in caller.node_def if node.name == name)
            _inline(caller, call, functions[_callee(call)])
    return found


def _calls(graph_def: Any) -> Iterator[tuple[Any, str]]:
    """Yield the functions that make calls that can be inlined, with the names of these."""
    functions = _functions(graph_def)
    for caller in graph_def.library.function:
        for node in caller.node_def:
            function = functions.get(_callee(node))
            if function is not None and _can_inline(node, function):
                yield caller, node.name


def _functions(graph_def: Any) -> Mapping[str, Any]:
    return {function.signature.name: function for function in graph_def.library.function}


def _callee(node: Any) -> str:
    """Return the name of the function that a node calls, if it calls one: its type may be this name."""
    return str(node.attr["f"].func.name) if node.op in CALLS else str(node.op)


def _can_inline(node: Any, function: Any) -> bool:
    has_xla = any(owner.attr[XLA].b for owner in (node, function) if XLA in owner.attr)
    arguments = (*function.signature.input_arg, *function.signature.output_arg)
    is_generic = any(a.type_attr or a.number_attr or a.type_list_attr for a in arguments)
    return not has_xla and not is_generic


def _inline(caller: Any, call: Any, function: Any) -> None:
    """Put the operations of a function into its caller, in the place of a call."""
    prefix = _unused_prefix(caller, call.name)
    given = [tensor for tensor in call.input if not tensor.startswith("^")]
    waits_for = [tensor for tensor in call.input if tensor.startswith("^")]
    arguments = {a.name: tensor for a, tensor in zip(function.signature.input_arg, given, strict=True)}

    def renamed(tensor: str) -> str:
        if tensor.startswith("^"):
            return f"^{prefix}{tensor[1:]}"
        return arguments.get(tensor) or prefix + tensor

    inner = []
    for node in function.node_def:
        copy = copied(node)
        copy.name = prefix + node.name
        del copy.input[:]
        copy.input.extend([*map(renamed, node.input), *waits_for])
        inner.append(copy)
    returned = {}
    for place, output in enumerate(function.signature.output_arg):
        name = f"output:{place}" if call.op in CALLS else f"{output.name}:0"
        returned[f"{call.name}:{name}"] = renamed(function.ret[output.name])
    # What waited for the call waits for what it ran.
    ran = [f"^{prefix}{name}" for name in function.control_ret.values()]
    after = type(call)(name=call.name, op="NoOp", input=ran or [f"^{node.name}" for node in inner])
    nodes = [node for node in caller.node_def if node.name != call.name]
    for node in nodes:
        for place, tensor in enumerate(node.input):
            node.input[place] = returned.get(tensor, tensor)
    for name, tensor in list(caller.ret.items()):
        caller.ret[name] = returned.get(tensor, tensor)
    is_waited_for = any(f"^{call.name}" in node.input for node in nodes)
    is_waited_for |= call.name in caller.control_ret.values()
    nodes = [copied(node) for node in (*nodes, *inner, *([after] if is_waited_for else []))]
    del caller.node_def[:]
    caller.node_def.extend(nodes)


def _unused_prefix(caller: Any, name: str) -> str:
    """Return a prefix that no operation of a function has."""
    prefix = f"{name}/"
    while any(node.name.startswith(prefix) for node in caller.node_def):
        prefix = f"{prefix[:-1]}_/"
    return prefix
