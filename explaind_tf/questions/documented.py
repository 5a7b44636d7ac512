"""Public functions with a question's options: their signature and docstring are made from :class:`Options`."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

from explaind_tf.questions.options import Options

_Function = TypeVar("_Function", bound=Callable[..., Any])

# The entry of ``**options`` in a docstring, which the paragraphs of the options replace.
_PLACE = re.compile(r"^( *)\*\*options\n(?:\1 +.*\n)+", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+) : .*\n(?:    .*\n)+", re.MULTILINE)


def takes_options(function: _Function) -> _Function:
    """Replace ``**options`` in a function's signature and docstring by the single options.

    Options that the function names itself keep their place in the signature. Their paragraph comes from :class:`Options`.
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
    """Return the paragraphs of :class:`Options` about its fields, as parameters of a function."""
    section = inspect.getdoc(Options).partition("Attributes\n----------\n")[2]  # type: ignore[union-attr]
    lines = "".join(found[0] for found in _ENTRY.finditer(section)).splitlines()
    return "".join(f"{indent}{line}\n" for line in lines)
