"""The nodes of a graph's definition, those of its functions included."""

from collections.abc import Iterable, Iterator
from typing import Any


def all_nodes(graph_def: Any) -> Iterator[Any]:
    """Yield the nodes of a graph, then those of the functions that its calls, loops and branches are made of."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def copied(graph_def: Any) -> Any:
    """Return a copy that may be changed."""
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    return copy


def arguments_and_results(function: Any) -> tuple[list[str], list[str]]:
    """Return the names of the tensors that are inputs and outputs of a concrete function, or of its graph."""

    def named(tensors: Iterable[Any]) -> list[str]:
        return [tensor.name for tensor in tensors]

    return named(function.inputs), named(function.outputs)


def argument_types(node: Any, arguments: Iterable[Any]) -> list[tuple[str, int]]:
    """Return argument and type of each tensor of an operation's inputs or outputs."""
    found: list[tuple[str, int]] = []
    for argument in arguments:
        if argument.type_list_attr:
            types = list(node.attr[argument.type_list_attr].list.type)
        else:
            count = node.attr[argument.number_attr].i if argument.number_attr else 1
            types = [argument.type or node.attr[argument.type_attr].type] * count
        found += [(argument.name, number) for number in types]
    return found
