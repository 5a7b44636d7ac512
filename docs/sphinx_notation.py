"""A griffe extension for the site: rewrites the Sphinx notation of docstrings in Markdown."""

import re
from typing import Any

import griffe

_ROLE = re.compile(r":(?:func|class|meth|attr|mod|data):`~?([^`]+)`")
_LITERAL_FOLLOWS = re.compile(r"::(?=\n\n)")


class SphinxNotation(griffe.Extension):
    """Turns roles into code and ``::`` before a literal block into a colon."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = _LITERAL_FOLLOWS.sub(":", _ROLE.sub(r"`\1`", obj.docstring.value))
