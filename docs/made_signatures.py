"""For the site: public functions whose signature and docstring are made when the package is imported."""

import inspect
from typing import Any

import griffe

_MARK = "takes_options"


class MadeSignatures(griffe.Extension):
    """Shows functions under ``@takes_options`` as Python's own ``help()`` does."""

    def on_function_instance(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Take signature and docstring from the function itself."""
        if not any(_MARK in str(decorator.value) for decorator in func.decorators):
            return
        made = griffe.dynamic_import(func.path)
        if func.docstring:
            func.docstring.value = inspect.getdoc(made) or ""
        own = {one.name: one for one in func.parameters}
        func.parameters = griffe.Parameters(
            *(own.get(one.name) or _parameter(one) for one in inspect.signature(made).parameters.values())
        )


def _parameter(one: inspect.Parameter) -> griffe.Parameter:
    annotation = (
        one.annotation if isinstance(one.annotation, str) else inspect.formatannotation(one.annotation)
    )
    kind = griffe.ParameterKind.keyword_only
    return griffe.Parameter(one.name, annotation=annotation, kind=kind, default=repr(one.default))
