"""A griffe extension for the site: signatures and docstrings that the package makes when it is imported."""

import inspect
import re
from typing import Any

import griffe

_MARK = "takes_options"
_MODULES = re.compile(r"\b(collections\.abc|typing|numpy)\.")


class MadeSignatures(griffe.Extension):
    """Shows functions decorated by ``@takes_options`` as ``help()`` shows them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Take signature and docstring from the imported function."""
        if not (isinstance(obj, griffe.Function) and any(_MARK in str(d.value) for d in obj.decorators)):
            return
        made = griffe.dynamic_import(obj.path)
        if obj.docstring:
            obj.docstring.value = inspect.getdoc(made) or ""
        own = {one.name: one for one in obj.parameters}
        obj.parameters = griffe.Parameters(
            *(own.get(one.name) or _parameter(one) for one in inspect.signature(made).parameters.values())
        )


def _parameter(one: inspect.Parameter) -> griffe.Parameter:
    annotation = _MODULES.sub("", inspect.formatannotation(one.annotation))
    kind = griffe.ParameterKind.keyword_only
    return griffe.Parameter(one.name, annotation=annotation, kind=kind, default=repr(one.default))
