"""A graph in another precision: the same operations on floating-point numbers of another type.

The twin of a bfloat16 or float16 model in float32 is such a graph, and so is a float32 model in float64. Operations that
cannot work in the wanted type, and random numbers, which would be other ones, keep their type between two casts.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import tensorflow as tf

# TensorFlow has no public API for these.
from tensorflow.python.framework import kernels, op_def_registry

from explaind_tf.runs.graphs.graph_nodes import all_nodes, argument_types, copied

_REDUCED = (tf.bfloat16, tf.float16)
# Operations whose values depend on the type of their numbers, not only on the numbers.
_BOUND = ("Bitcast", "Quantize", "Dequantize", "FakeQuant", "EncodeProto", "DecodeRaw", "StringFormat")
_RANDOM = (
    "Random",
    "StatelessRandom",
    "StatelessTruncated",
    "StatelessParameterized",
    "StatelessMultinomial",
)
_STATEFUL_RANDOM = ("Stateful", "Truncated", "Parameterized", "Multinomial")
# Units in the last place: numpy does not know bfloat16.
_EPS = {tf.bfloat16: 2.0**-7, tf.float16: 2.0**-10, tf.float32: 2.0**-23, tf.float64: 2.0**-52}
# Operations that do not compute.
_CARRY = ("Placeholder", "Cast")


class Retyped(NamedTuple):
    """A graph in another precision.

    Attributes
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph. Its operations keep their names.
    renamed : dict
        The tensors, as ``"node:index"``, in whose place others have the wanted type, with these.
    """

    graph_def: Any
    renamed: dict[str, str]


def in_precision(graph_def: Any, dtype: tf.DType, kept: Collection[str] = ()) -> Retyped:
    """Return a graph that computes in another floating-point type.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph, with the functions that its loops and branches are made of.
    dtype : tf.DType
        float32 or float64. Narrower types become this one, and complex numbers of two float32 those of two float64.
    kept : collection of str
        Names of placeholders that keep their type. What they hold is cast.
    """
    narrower = {t.as_datatype_enum: dtype.as_datatype_enum for t in narrower_than(dtype)}
    if dtype == tf.float64:
        narrower[tf.complex64.as_datatype_enum] = tf.complex128.as_datatype_enum
    found = copied(graph_def)
    body = _Body(graph_def.node, narrower, kept, in_function=False)
    del found.node[:]
    found.node.extend(body.nodes())
    for function, own in zip(graph_def.library.function, found.library.function, strict=True):
        inner = _Body(function.node_def, narrower, (), in_function=True)
        del own.node_def[:]
        own.node_def.extend(inner.nodes())
        for name, tensor in function.ret.items():
            own.ret[name] = inner.renamed.get(tensor, tensor)
        for argument in (*own.signature.input_arg, *own.signature.output_arg):
            argument.type = narrower.get(argument.type, argument.type)
        _retype_attributes(own.attr, narrower)
        for attributes in own.arg_attr.values():
            _retype_attributes(attributes.attr, narrower)
    tensors = {tensor if ":" in tensor else f"{tensor}:0": new for tensor, new in body.renamed.items()}
    return Retyped(found, {tensor: f"{new}:0" for tensor, new in tensors.items()})


def narrower_than(dtype: tf.DType) -> tuple[tf.DType, ...]:
    """Return the floating-point types that are computed in ``dtype`` instead."""
    return (*_REDUCED, tf.float32) if dtype == tf.float64 else _REDUCED


def eps_of(dtype: tf.DType) -> float:
    """Return the unit in the last place of a floating-point type."""
    return _EPS[dtype]


def computes_in(graph_def: Any) -> set[tf.DType]:
    """Return the floating-point types that a graph computes in, besides those that it only casts."""
    found = {
        tf.dtypes.as_dtype(number)
        for node in all_nodes(graph_def)
        if node.op not in _CARRY
        for value in node.attr.values()
        for number in ([value.type] if value.HasField("type") else value.list.type)
        if number
    }
    return {dtype for dtype in found if dtype.is_floating}


class _Body:
    """The operations of a graph, or of one of its functions.

    Attributes
    ----------
    renamed : dict
        References to tensors that keep their type, and to their casts.
    """

    def __init__(
        self, nodes: Iterable[Any], narrower: Mapping[int, int], kept: Collection[str], *, in_function: bool
    ) -> None:
        self._nodes, self._narrower, self._in_function = list(nodes), narrower, in_function
        self._kept = {node.name for node in self._nodes if node.name in kept or not _works_in(node, narrower)}
        self.renamed: dict[str, str] = {}
        self._casts: dict[str, list[Any]] = {}
        for node in self._nodes:
            if node.name in self._kept:
                self._casts[node.name] = list(self._casts_behind(node))

    def nodes(self) -> Iterator[Any]:
        """Yield the operations in the other type."""
        for node in self._nodes:
            copy = type(node)()
            copy.CopyFrom(node)
            for place, tensor in enumerate(node.input):
                copy.input[place] = self.renamed.get(tensor, tensor)
            if node.name in self._kept:
                yield from self._casts_before(copy)
                yield copy
                yield from self._casts[node.name]
            else:
                _retype_attributes(copy.attr, self._narrower)
                yield copy

    def _casts_before(self, node: Any) -> Iterator[Any]:
        """Yield casts of what an operation reads, and let it read them."""
        types = argument_types(node, op_def_registry.get(node.op).input_arg)
        for place, (_, number) in enumerate(types):
            if number in self._narrower:
                name = f"{node.name}/input_{place}"
                yield _cast(node, name, node.input[place], self._narrower[number], number)
                node.input[place] = f"{name}:y:0" if self._in_function else name

    def _casts_behind(self, node: Any) -> Iterator[Any]:
        """Yield casts of what an operation returns, and note that they take its place."""
        types = argument_types(node, op_def_registry.get(node.op).output_arg)
        of_argument: dict[str, int] = {}
        for place, (argument, number) in enumerate(types):
            index = of_argument[argument] = of_argument.get(argument, -1) + 1
            if number not in self._narrower:
                continue
            name = f"{node.name}/output_{place}"
            if self._in_function:
                source = f"{node.name}:{argument}:{index}"
                self.renamed[source] = f"{name}:y:0"
            else:
                source = f"{node.name}:{place}"
                self.renamed[source] = name
                if place == 0:
                    self.renamed[node.name] = name
            yield _cast(node, name, source, number, self._narrower[number])


def _retype_attributes(attributes: Any, narrower: Mapping[int, int]) -> None:
    for value in attributes.values():
        if value.HasField("type"):
            value.type = narrower.get(value.type, value.type)
        elif value.HasField("tensor") and value.tensor.dtype in narrower:
            wanted = tf.dtypes.as_dtype(narrower[value.tensor.dtype])
            numbers = tf.make_ndarray(value.tensor).astype(wanted.as_numpy_dtype)
            value.tensor.CopyFrom(tf.make_tensor_proto(numbers))
        elif value.HasField("func"):
            _retype_attributes(value.func.attr, narrower)
        for place, number in enumerate(value.list.type):
            value.list.type[place] = narrower.get(number, number)
        for function in value.list.func:
            _retype_attributes(function.attr, narrower)


def _works_in(node: Any, narrower: Mapping[int, int]) -> bool:
    """Whether an operation computes the same in the other type."""
    definition = op_def_registry.get(node.op)
    if definition is None:  # a function of the graph
        return True
    changed = {
        attribute.name: narrower[node.attr[attribute.name].type]
        for attribute in definition.attr
        if attribute.type == "type" and node.attr[attribute.name].type in narrower
    }
    has_fixed = any(a.type in narrower for a in (*definition.input_arg, *definition.output_arg))
    if has_fixed or (changed and node.op.startswith((*_BOUND, *_RANDOM, *_STATEFUL_RANDOM))):
        return False
    for attribute in definition.attr:
        allowed = attribute.allowed_values.list.type
        if attribute.name in changed and allowed and changed[attribute.name] not in allowed:
            return False
    return all(_has_kernel(node.op, name, number) for name, number in changed.items())


@cache
def _has_kernel(operation: str, attribute: str, number: int) -> bool:
    """Whether a kernel of the processor takes a type."""
    own = [k for k in kernels.get_registered_kernels_for_op(operation).kernel if k.device_type == "CPU"]
    limits = [[c.allowed_values.list.type for c in k.constraint if c.name == attribute] for k in own]
    # Some operations, such as those of control flow, have no kernels of their own, or none that names the type.
    return not own or any(not of_kernel or number in of_kernel[0] for of_kernel in limits)


def _cast(beside: Any, name: str, source: str, given: int, wanted: int) -> Any:
    cast = type(beside)(name=name, op="Cast", input=[source], device=beside.device)
    cast.attr["SrcT"].type, cast.attr["DstT"].type = given, wanted
    cast.attr["Truncate"].b = False
    return cast
