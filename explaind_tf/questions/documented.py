"""Public functions that take a question's options: their signature and docstring are made from :class:`Options`."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from explaind_tf.questions.options import Options

_Function = TypeVar("_Function", bound=Callable[..., Any])

# What stands for the options in the docstring of a function that takes them.
_PLACE = re.compile(r"^( *)\*\*options\n(?:\1 +.*\n)+", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+) : .*\n(?:    .*\n)+", re.MULTILINE)


def takes_options(function: _Function) -> _Function:
    """Give a function with ``**options`` the signature and the docstring of one that names each option.

    Options that the function names itself stay where they are in its signature; their paragraph is :class:`Options`'.
    """
    signature = inspect.signature(function)
    own = {name: one for name, one in signature.parameters.items() if name != "options"}
    named = [
        inspect.Parameter(
            entry.name, inspect.Parameter.KEYWORD_ONLY, default=entry.default, annotation=entry.type
        )
        for entry in fields(Options)
        if entry.name not in own
    ]
    first = [one for one in own.values() if one.kind is not inspect.Parameter.KEYWORD_ONLY]
    last = [one for one in own.values() if one.kind is inspect.Parameter.KEYWORD_ONLY]
    function.__signature__ = signature.replace(parameters=[*first, *named, *last])  # type: ignore[attr-defined]
    function.__doc__ = _PLACE.sub(lambda found: _paragraphs(found[1]), function.__doc__ or "")
    return function


def _paragraphs(indent: str) -> str:
    """Return what :class:`Options` says of its fields, as parameters of a function."""
    section = inspect.getdoc(Options).partition("Attributes\n----------\n")[2]  # type: ignore[union-attr]
    lines = "".join(found[0] for found in _ENTRY.finditer(section)).splitlines()
    return "".join(f"{indent}{line}\n" for line in lines)
