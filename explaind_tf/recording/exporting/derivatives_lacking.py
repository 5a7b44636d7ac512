"""Operations in the way of the derivative of a prediction: those that have none, and those whose zero is not true.

A graph is searched, and the functions of its loops and branches: these have derivatives by all that they read, of all that
they return.
"""

from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import tensorflow as tf

# TensorFlow has no public API for this.
from tensorflow.python.framework import op_def_registry

from explaind_tf.kernel.operations.reverse_mode import has_gradient
from explaind_tf.runs.graphs.expanded import expanded
from explaind_tf.runs.graphs.graph_nodes import argument_types
from explaind_tf.runs.graphs.seen_through import seen_through

# Inputs by which TensorFlow takes the derivative to be zero, though values move with them; None stands for all.
_FALSE_ZEROS: dict[str, tuple[int, ...] | None] = {
    "Betainc": (0, 1),
    "CTCBeamSearchDecoder": (0,),
    "CTCGreedyDecoder": (0,),
    "DrawBoundingBoxes": (0,),
    "ExtractGlimpse": (0,),
    "FusedBatchNorm": (3, 4),
    "FusedBatchNormV2": (3, 4),
    "FusedBatchNormV3": (3, 4),
    "GenerateBoundingBoxProposals": (0, 1),
    "HSVToRGB": (0,),
    "ImageProjectiveTransformV2": (1,),
    "ImageProjectiveTransformV3": (1, 3),
    "LinSpace": (0, 1),
    "OneHot": (2, 3),
    "PadV2": (2,),
    "Polygamma": (0,),
    "PyFunc": None,
    "PyFuncStateless": None,
    "RandomCrop": (0,),
    "RandomShuffle": (0,),
    "Range": (0, 2),
    "ScaleAndTranslate": (2, 3),
    "SparseConcat": None,
    "TensorListConcatLists": None,
    "TensorListPushBackBatch": None,
    "Zeta": (0,),
}
# Operations whose values do not move with what they read, or only jump: there, a zero is true.
_STEADY = (
    "ZerosLike",
    "OnesLike",
    "Round",
    "Rint",
    "Floor",
    "Ceil",
    "Sign",
    "FloorDiv",
    "TruncateDiv",
)
# The attributes that name what loops and branches run, and how many of their inputs these functions do not get.
_INNER = {
    "While": (("body",), 0),
    "StatelessWhile": (("body",), 0),
    "If": (("then_branch", "else_branch"), 1),
    "StatelessIf": (("then_branch", "else_branch"), 1),
    "Case": (("branches",), 1),
    "StatelessCase": (("branches",), 1),
}
_CARRIERS = frozenset(
    t.as_datatype_enum
    for t in (tf.float16, tf.bfloat16, tf.float32, tf.float64, tf.complex64, tf.complex128, tf.variant)
)


class Lacking(NamedTuple):
    """An operation in the way of a derivative.

    Attributes
    ----------
    name, type : str
        Its name and its type.
    within : str
        The name of the loop or branch that it is in, if it is in one.
    argument : str or None
        The argument by which its derivative is taken to be zero, None if it has no derivative at all.
    """

    name: str
    type: str
    argument: str | None
    within: str = ""


def first_lacking(concrete: Any, variables: int) -> Lacking | None:
    """Return the first operation in the way of the derivative of a function by the values of variables.

    Parameters
    ----------
    concrete : tf.types.experimental.ConcreteFunction
        The function.
    variables : int
        How many of its first arguments are values of variables.
    """
    graph = expanded(concrete)
    graph_def, inputs = seen_through(graph.graph_def), set(graph.inputs[:variables])
    functions = {function.signature.name: function for function in graph_def.library.function}
    return _Body(graph_def.node, in_function=False).first_lacking(inputs, inputs, graph.outputs, functions)


class _Node(NamedTuple):
    """An operation, and the tensors that may carry derivatives to it and from it; None where a tensor cannot."""

    definition: Any
    read: list[str | None]
    made: list[str | None]

    @property
    def type(self) -> str:
        return str(self.definition.op)


class _Body:
    """The operations of a graph, or of one of its functions."""

    def __init__(self, nodes: Collection[Any], *, in_function: bool) -> None:
        self._in_function = in_function
        self._nodes = [self._read(node) for node in nodes]

    def _read(self, node: Any) -> _Node:
        definition = op_def_registry.get(node.op)
        if definition is None:  # a call that only XLA can compile, which is refused as such
            return _Node(node, [], [])
        given = [self._tensor(name) for name in node.input]
        types = [number for _, number in argument_types(node, definition.input_arg)]
        read = [
            name if number in _CARRIERS else None for name, number in zip(given, types, strict=False)
        ]  # then control inputs
        made: list[str | None] = []
        count: dict[str, int] = {}
        for place, (argument, number) in enumerate(argument_types(node, definition.output_arg)):
            index = count[argument] = count.get(argument, -1) + 1
            name = f"{node.name}:{argument}:{index}" if self._in_function else f"{node.name}:{place}"
            made.append(name if number in _CARRIERS else None)
        return _Node(node, read, made)

    def _tensor(self, name: str) -> str:
        return name if self._in_function or ":" in name else f"{name}:0"

    def first_lacking(
        self, reached: set[str], moved: set[str], ends: Collection[str], functions: Mapping[str, Any]
    ) -> Lacking | None:
        """Return the first operation in the way between tensors, whose values move in part, and ends."""
        reached, moved = self.behind(reached, ()), self.behind(moved, _STEADY)
        needed = self._before(ends)
        for node in self._nodes:
            if node.definition.name not in needed or not reached.intersection(node.read):
                continue
            if any(node.made) and not has_gradient(node.type):
                return Lacking(node.definition.name, node.type, None)
            for place in _false_zeros(node):
                if node.read[place] in moved:
                    return Lacking(node.definition.name, node.type, _argument(node, place))
            for found in self._inner(node, moved, functions):
                if found is not None:
                    return found._replace(within=node.definition.name)
        return None

    def behind(self, start: set[str], steady: Collection[str]) -> set[str]:
        """Return the tensors that depend on some, but not through operations of steady types."""
        found, count = set(start), -1
        while len(found) > count:  # operations need not be in the order in which they run
            count = len(found)
            for node in self._nodes:
                if node.type not in steady and found.intersection(node.read):
                    found.update(name for name in node.made if name)
        return found

    def _inner(self, node: _Node, moved: set[str], functions: Mapping[str, Any]) -> Iterator[Lacking | None]:
        """Yield what is found in the functions of a loop, or in branches."""
        attributes, skipped = _INNER.get(node.type, ((), 0))
        is_moved = [tensor in moved for tensor in node.read[skipped:]]
        for attribute in attributes:
            value = node.definition.attr[attribute]
            for own in value.list.func or [value.func]:
                function = _Function(functions[own.name], is_loop=attribute == "body")
                yield function.first_lacking(is_moved, functions)

    def _before(self, ends: Collection[str]) -> set[str]:
        """Return the names of the operations on which tensors depend."""
        found: set[str] = set()
        left = list(ends)
        while left:
            name = left.pop().split(":")[0]
            if name not in found and name in self._by_name:
                found.add(name)
                left.extend(tensor for tensor in self._by_name[name].read if tensor)
        return found

    @cached_property
    def _by_name(self) -> dict[str, _Node]:
        return {node.definition.name: node for node in self._nodes}


class _Function:
    """A function that a loop or a branch runs."""

    def __init__(self, definition: Any, *, is_loop: bool) -> None:
        signature = definition.signature
        self._body, self._is_loop = _Body(definition.node_def, in_function=True), is_loop
        self._arguments = [(own.name, own.type in _CARRIERS) for own in signature.input_arg]
        self._returned = [(definition.ret[own.name], own.type in _CARRIERS) for own in signature.output_arg]

    def first_lacking(self, is_moved: list[bool], functions: Mapping[str, Any]) -> Lacking | None:
        """Return the first operation in the way of its derivatives, if the values of some arguments move."""
        reached = {name for name, carries in self._arguments if carries}
        moved = {name for (name, _), moves in zip(self._arguments, is_moved, strict=True) if moves}
        count = -1
        while self._is_loop and len(moved) > count:  # a round reads what the last one returned
            count = len(moved)
            behind = self._body.behind(moved, _STEADY)
            pairs = zip(self._arguments, self._returned, strict=True)
            moved |= {name for (name, carries), (tensor, _) in pairs if carries and tensor in behind}
        ends = [tensor for tensor, carries in self._returned if carries]
        return self._body.first_lacking(reached, moved, ends, functions)


def _false_zeros(node: _Node) -> Iterator[int]:
    """Yield the places of the inputs by which the derivative is taken to be zero and is not."""
    if node.type in _FALSE_ZEROS:
        places = _FALSE_ZEROS[node.type]
        yield from range(len(node.read)) if places is None else places


def _argument(node: _Node, place: int) -> str:
    definition = op_def_registry.get(node.type)
    return argument_types(node.definition, definition.input_arg)[place][0]
