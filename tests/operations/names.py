"""The public names of Keras that a model is built of, found by walking."""

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any

import keras

MODULES = (keras.layers, keras.activations, keras.losses, keras.ops)


def _walk(module: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Give the public names of a module and of the modules in it, with what they stand for."""
    for name in sorted(vars(module)):
        value = getattr(module, name)
        if name.startswith("_"):
            continue
        if inspect.ismodule(value):
            yield from _walk(value, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", value


@cache
def public_names() -> dict[str, Any]:
    """Return all public names, with what they stand for."""
    return {name: value for module in MODULES for name, value in _walk(module, module.__name__)}


@cache
def first_names() -> dict[str, str]:
    """Return for each public name the first name of the same object: Convolution2D is Conv2D."""
    firsts: dict[int, str] = {}
    return {name: firsts.setdefault(id(value), name) for name, value in public_names().items()}


def distinct_names() -> list[str]:
    """Return one name for each object."""
    return list(dict.fromkeys(first_names().values()))
