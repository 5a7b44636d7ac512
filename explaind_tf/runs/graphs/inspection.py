"""What a graph holds beside the operations that it may hold, found in its bytes, before TensorFlow loads anything.

Functions that nothing calls and branches that are never taken count like all others.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from explaind_tf.runs.graphs.allowed_operations import ALLOWED
from explaind_tf.runs.storage.messages import enum_number

# Of the main graph only constants are loaded, see :func:`explaind_tf.runs.graphs.checked_load.stripped`. TensorFlow
# writes an operation that makes a variable for each one that a SavedModel holds.
_ONLY_IN_MAIN_GRAPH = frozenset({"VarHandleOp"})
# Their values are handles of something that exists in a process.
_HANDLES = frozenset(enum_number("tensorflow.DataType", name) for name in ("DT_RESOURCE", "DT_VARIANT"))
# So TensorFlow ends the names of functions. No operation's name ends so.
_NUMBERED = re.compile(r"_[0-9]+$")
# Kinds of attributes that hold functions or constants.
_WITH_PARTS = frozenset({"func", "list", "tensor"})
_SETTINGS_OF_CALLS = frozenset(
    {
        "device_count",
        "gpu_options",
        "pluggable_device_options",
        "allow_soft_placement",
        "log_device_placement",
        "intra_op_parallelism_threads",
        "inter_op_parallelism_threads",
        "graph_options",
        "experimental",
    }
)
_PLAIN_OBJECTS = frozenset(
    {
        "_generic_user_object",
        "trackable_list_wrapper",
        "trackable_dict_wrapper",
        "trackable_tuple_wrapper",
        "signature_map",
    }
)
# Classes that TensorFlow itself registers, by the kind of their objects.
_REGISTERED = {"constant": "tf.TrackableConstant"}
_KINDS = frozenset(
    {"user_object", "function", "bare_concrete_function", "variable", "constant", "captured_tensor"}
)


@dataclass(frozen=True)
class Finding:
    """Something in a graph that may not be there.

    Attributes
    ----------
    what : str
        The type of an operation, or what else was found.
    where : str
        The name of the operation and of its function, or of the object.
    """

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what} ({self.where})"


def told(findings: list[Finding], most: int = 4) -> str:
    """Return findings as a text, of which the first ``most`` are named."""
    more = f" and {len(findings) - most} more" if len(findings) > most else ""
    return ", ".join(str(finding) for finding in findings[:most]) + more


def in_graph(
    graph_def: Any, exempt: frozenset[str] = frozenset(), also_in_main: frozenset[str] = frozenset()
) -> list[Finding]:
    """Return what a graph with its library of functions may not hold.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph.
    exempt : frozenset of str
        Names of functions that are not looked at, since they are never loaded.
    also_in_main : frozenset of str
        Operations that are allowed outside of functions, beside the others.
    """
    library = graph_def.library
    known = frozenset(function.signature.name for function in library.function)
    found = [each for node in graph_def.node for each in _in_node(node, known | also_in_main, "")]
    for function in library.function:
        name = function.signature.name
        if _is_operation(name):
            found.append(Finding(f"a function with the name of the operation {name}", "library"))
        if name not in exempt:
            found += [each for node in function.node_def for each in _in_node(node, known, name)]
            found += [
                each
                for key in function.attr
                for each in _in_value(function.attr[key], known, f"{key} of {name}")
            ]
    gradients = [(each.function_name, each.gradient_func) for each in library.gradient]
    gradients += [(each.gradient_func, each.gradient_func) for each in library.registered_gradients]
    missing = sorted({name for pair in gradients for name in pair if name not in known})
    return found + [
        Finding(f"a gradient by the function {name!r}, which is not there", "library") for name in missing
    ]


def in_meta_graph(meta: Any) -> list[Finding]:
    """Return what the meta graph of a SavedModel, a ``MetaGraphDef``, may not hold."""
    found = in_graph(meta.graph_def, savers_of(meta), _ONLY_IN_MAIN_GRAPH)
    found += [Finding("a file beside the graph", asset.filename) for asset in meta.asset_file_def]
    if meta.meta_info_def.HasField("any_info"):
        found.append(Finding("a message of another kind", "any_info"))
    for number, node in enumerate(meta.object_graph_def.nodes):
        found += [Finding(what, f"object {number}") for what in _in_object(node)]
    return found


def savers_of(meta: Any) -> frozenset[str]:
    """Return the names of the functions with which TensorFlow would save and restore variables, used for nothing else.

    They read and write files. They are in every SavedModel that TensorFlow writes, and are never loaded.
    """
    graph, library = meta.graph_def, meta.graph_def.library
    own = {meta.saver_def.save_tensor_name.split(":")[0], meta.saver_def.restore_op_name}
    known = {function.signature.name for function in library.function}
    by_savers = known & {name for node in graph.node if node.name in own for name in _called(node)}
    if not by_savers:
        return frozenset()
    elsewhere = {name for node in graph.node if node.name not in own for name in _called(node)}
    for function in library.function:
        elsewhere |= {name for node in function.node_def for name in _called(node)}
        elsewhere |= {name for key in function.attr for name in _functions_in(function.attr[key])}
    elsewhere |= {each.gradient_func for each in (*library.gradient, *library.registered_gradients)}
    elsewhere |= set(meta.object_graph_def.concrete_functions)
    return frozenset(by_savers - elsewhere)


def _called(node: Any) -> Iterator[str]:
    yield node.op
    for value in node.attr.values():
        yield from _functions_in(value)


def _functions_in(value: Any) -> Iterator[str]:
    kind = value.WhichOneof("value")
    for function in [value.func] if kind == "func" else value.list.func if kind == "list" else ():
        yield function.name
        for key in function.attr:
            yield from _functions_in(function.attr[key])


def _in_node(node: Any, known: frozenset[str], function: str) -> Iterator[Finding]:
    where = f"{node.name!r} of the function {function!r}" if function else repr(node.name)
    if node.op not in ALLOWED and node.op not in known:
        yield Finding(node.op, where)
    if node.op == "PrintV2":
        stream = node.attr["output_stream"].s.decode(errors="replace") or "stderr"
        if stream not in ("stdout", "stderr") and not stream.startswith("log("):
            yield Finding(f"PrintV2 to {stream!r}", where)
    if "job:" in node.device and "job:localhost" not in node.device:
        yield Finding(f"an operation for the device {node.device!r}", where)
    for key, value in node.attr.items():
        yield from _in_value(value, known, where)
        if key == "config_proto":
            yield from _in_settings(node, value.s, where)


def _in_value(value: Any, known: frozenset[str], where: str) -> Iterator[Finding]:
    kind = value.WhichOneof("value")
    if kind not in _WITH_PARTS:
        return
    for name in _functions_in(value):
        if name not in known:
            yield Finding(f"a call of {name!r}, which is no function of the graph", where)
    for tensor in [value.tensor] if kind == "tensor" else value.list.tensor:
        if tensor.dtype in _HANDLES or tensor.resource_handle_val or tensor.variant_val:
            yield Finding("a constant that is a handle", where)


def _is_operation(name: str) -> bool:
    """Return whether TensorFlow has an operation of that name, which a function would be taken for.

    It is imported only for names that are not as it gives them to functions.
    """
    if name in ALLOWED or _NUMBERED.search(name):
        return name in ALLOWED
    from tensorflow.python.framework import op_def_registry

    return op_def_registry.get(name) is not None


def _in_settings(node: Any, data: bytes, where: str) -> Iterator[Finding]:
    """Yield what is wrong with the settings of a call, which TensorFlow parses when it runs."""
    settings_class = GetMessageClass(
        node.DESCRIPTOR.file.pool.FindMessageTypeByName("tensorflow.ConfigProto")
    )
    try:
        settings = settings_class.FromString(data)
    except Exception:  # the message of protobuf says no more
        yield Finding("settings of a call that cannot be read", where)
        return
    others = [field.name for field, _ in settings.ListFields() if field.name not in _SETTINGS_OF_CALLS]
    if settings.graph_options.rewrite_options.custom_optimizers:
        others.append("custom_optimizers")
    if others:
        yield Finding(f"settings of a call: {', '.join(others)}", where)


def _in_object(node: Any) -> Iterator[str]:
    kind = node.WhichOneof("kind")
    if kind not in _KINDS:
        yield f"an object of the kind {kind!r}"
    if kind == "user_object" and node.user_object.identifier not in _PLAIN_OBJECTS:
        yield f"an object of the class {node.user_object.identifier!r}"
    is_own = node.registered_name == _REGISTERED.get(kind)
    if (node.registered_name and not is_own) or node.HasField("serialized_user_proto"):
        yield f"an object of the registered class {node.registered_name!r}"
    if node.saveable_objects or node.registered_saver:
        yield "an object with functions that save and restore it"
    if node.slot_variables:
        yield "an object with slot variables"
