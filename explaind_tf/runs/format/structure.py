"""The nested structure of a model's inputs and targets, as plain data.

A structure is a :class:`Leaf` or a dict, list or tuple of structures. The manifest holds it as JSON. It is enough to
check and flatten a user's arrays in a process that does not have the model.
"""

import math
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from explaind_tf.errors import RunFormatError

# Limits for shapes that a file states: NumPy takes no more dimensions, and no memory holds more values.
_MOST_DIMENSIONS = 32
_MOST_VALUES = 2**36


@dataclass(frozen=True)
class Leaf:
    """One tensor of a sample: its dtype and its shape without the batch dimension."""

    dtype: str
    shape: tuple[int | None, ...]

    @property
    def numpy_dtype(self) -> np.dtype:
        """NumPy's type of its values. NumPy itself has no bfloat16."""
        if self.dtype == "bfloat16":
            from ml_dtypes import bfloat16  # the shell starts sooner without it

            return np.dtype(bfloat16)
        return np.dtype(self.dtype)

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in ("batch", *self.shape))
        return f"{self.dtype}({sizes})"


Structure = Leaf | dict[str | int, "Structure"] | list["Structure"] | tuple["Structure", ...]


def from_element_spec(spec: Any) -> Structure:
    """Return the structure of a batched element spec of a ``tf.data.Dataset``."""
    if isinstance(spec, dict):
        return {key: from_element_spec(spec[key]) for key in sorted(spec)}
    if isinstance(spec, (list, tuple)):
        return _like(spec, [from_element_spec(part) for part in spec])
    return Leaf(spec.dtype.name, tuple(spec.shape[1:]))


def _like(sequence: Any, parts: list[Any]) -> Any:
    """Return parts as a sequence of the same type. A namedtuple takes them one by one."""
    return type(sequence)(*parts) if hasattr(sequence, "_fields") else type(sequence)(parts)


def to_json(structure: Structure) -> Any:
    """Return the structure as JSON values. A namedtuple becomes a tuple."""
    if isinstance(structure, Leaf):
        return {"leaf": {"dtype": structure.dtype, "shape": list(structure.shape)}}
    if isinstance(structure, dict):
        if all(isinstance(key, str) for key in structure):
            return {"dict": {key: to_json(part) for key, part in structure.items()}}
        return {"items": [[key, to_json(part)] for key, part in structure.items()]}
    kind = "tuple" if isinstance(structure, tuple) else "list"
    return {kind: [to_json(part) for part in structure]}


def from_json(value: Any) -> Structure:
    """Return the structure that :func:`to_json` wrote.

    Raises
    ------
    RunFormatError
        If the value is anything else.
    """
    if isinstance(value, dict) and len(value) == 1:
        ((kind, body),) = value.items()
        if kind == "leaf" and isinstance(body, dict) and set(body) == {"dtype", "shape"}:
            return _leaf_from_json(body["dtype"], body["shape"])
        if kind == "dict" and isinstance(body, dict):
            return {str(key): from_json(body[key]) for key in sorted(body)}
        if kind == "items" and isinstance(body, list):
            return _items_from_json(body)
        if kind == "list" and isinstance(body, list):
            return [from_json(part) for part in body]
        if kind == "tuple" and isinstance(body, list):
            return tuple(from_json(part) for part in body)
    raise RunFormatError(
        f"The manifest describes an input in a way this version does not know: {reprlib.repr(value)}. It needs one of "
        f"leaf, dict, list and tuple, as this version writes them."
    )


def _items_from_json(body: list[Any]) -> Structure:
    """Return a dict whose keys are integers, or integers and strings."""
    found: dict[str | int, Structure] = {}
    for item in body:
        is_pair = isinstance(item, list) and len(item) == 2
        if not is_pair or type(item[0]) not in (int, str) or item[0] in found:
            raise RunFormatError(
                f"The manifest describes a dict by the item {reprlib.repr(item)}. It needs a pair of a key, an integer or a "
                f"string that no other item has, and a structure."
            )
        found[item[0]] = from_json(item[1])
    return found


def _leaf_from_json(dtype: Any, shape: Any) -> Leaf:
    known = {"bool", "float16", "bfloat16", "float32", "float64", "complex64", "complex128"} | {
        f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
    }
    sizes_are_valid = isinstance(shape, list) and all(
        size is None or (isinstance(size, int) and not isinstance(size, bool) and size >= 0) for size in shape
    )
    if not isinstance(dtype, str) or dtype not in known or not sizes_are_valid:
        raise RunFormatError(
            f"The manifest describes a tensor of dtype {reprlib.repr(dtype)} and shape {reprlib.repr(shape)}. The dtype "
            f"must be bool, an integer, a float or complex, and each size null or a whole number from 0."
        )
    if len(shape) > _MOST_DIMENSIONS or math.prod(max(1, size or 1) for size in shape) > _MOST_VALUES:
        raise RunFormatError(
            f"The manifest describes a tensor of shape {reprlib.repr(shape)}: no sample or variable is that large."
        )
    return Leaf(dtype, tuple(shape))


def leaves(structure: Structure) -> list[Leaf]:
    """Return the leaves in flattening order (dictionaries by sorted key)."""
    if isinstance(structure, Leaf):
        return [structure]
    parts = [structure[key] for key in sorted(structure)] if isinstance(structure, dict) else structure
    return [leaf for part in parts for leaf in leaves(part)]


def flatten(structure: Structure, value: Any, where: str) -> list[tuple[str, Leaf, Any]]:
    """Match a user's value with the structure and return (where, leaf, value) in flattening order.

    Raises
    ------
    ValueError
        If the value is nested in another way. The message names the place.
    """
    if isinstance(structure, Leaf):
        if isinstance(value, (dict, tuple)):
            raise ValueError(
                f"{where} is a {type(value).__name__}; the run was recorded with one tensor. Give one array."
            )
        return [(where, structure, value)]
    if isinstance(structure, dict):
        if not isinstance(value, dict) or set(value) != set(structure):
            found = sorted(value) if isinstance(value, dict) else type(value).__name__
            raise ValueError(
                f"{where} must be a dict with the keys {sorted(structure)}, as in training. Found: {found}."
            )
        parts = [(f"{where}[{key!r}]", structure[key], value[key]) for key in sorted(structure)]
    else:
        if not isinstance(value, (list, tuple)) or len(value) != len(structure):
            found = f"{len(value)} parts" if isinstance(value, (list, tuple)) else type(value).__name__
            raise ValueError(f"{where} must be a sequence of {len(structure)} tensors. Found: {found}.")
        parts = [(f"{where}[{i}]", part, value[i]) for i, part in enumerate(structure)]
    return [leaf for name, part, item in parts for leaf in flatten(part, item, name)]


def pack(structure: Structure, flat: list[Any]) -> Any:
    """Return the flat values, nested as the structure. This is the inverse of :func:`flatten`."""
    values = iter(flat)

    def build(part: Structure) -> Any:
        if isinstance(part, Leaf):
            return next(values)
        if isinstance(part, dict):
            return {key: build(part[key]) for key in sorted(part)}
        return _like(part, [build(item) for item in part])

    return build(structure)


def map_leaves(structure: Structure, function: Callable[[Leaf], Any]) -> Any:
    """Return the structure with each leaf replaced by ``function(leaf)``."""
    return pack(structure, [function(leaf) for leaf in leaves(structure)])


def as_batches(structure: Structure, value: Any, where: str) -> list[np.ndarray]:
    """Check a user's arrays against the structure and return them flat, in the recorded dtypes.

    The width of a dtype may differ (float64 for float32, int64 for int32), but not its kind. Silently casting pixel
    bytes to floats, or floats to tokens, would change what the model sees.

    Raises
    ------
    ValueError
        On another structure, shape or dtype, an empty batch, unequal batch sizes, NaN or infinities.
    """
    flat = [_as_batch(name, leaf, item) for name, leaf, item in flatten(structure, value, where)]
    sizes = {len(array) for array in flat}
    if len(sizes) != 1:
        raise ValueError(f"{where} must have one batch size; found {sorted(sizes)}.")
    if sizes == {0}:
        raise ValueError(f"{where} is empty: at least one input is needed.")
    return flat


def _as_batch(where: str, leaf: Leaf, value: Any) -> np.ndarray:
    array = np.asarray(value)
    shape_fits = array.ndim == 1 + len(leaf.shape) and all(
        size is None or size == found for size, found in zip(leaf.shape, array.shape[1:], strict=True)
    )
    if not shape_fits:
        hint = ""
        if array.shape == leaf.shape:
            hint = " This looks like a single input: add the batch dimension, as in x[None]."
        raise ValueError(
            f"{where} has shape {array.shape}; the run was recorded with {leaf}, so it must have shape "
            f"(batch, {', '.join(str(size) for size in leaf.shape)}).{hint}"
        )
    wanted = leaf.numpy_dtype
    kinds = {array.dtype.kind, wanted.kind}
    if len(kinds) > 1 and kinds != {"i", "u"}:
        raise ValueError(
            f"{where} has dtype {array.dtype}; the run was recorded with {leaf.dtype}. Convert it as the "
            f"training data were converted (scaling included), for example x.astype({leaf.dtype!r})."
        )
    with np.errstate(over="ignore"):
        cast = array.astype(wanted)
    if wanted.kind in "iu" and not np.array_equal(cast, array):
        raise ValueError(
            f"{where} holds integers that do not fit into {leaf.dtype}, the recorded dtype. Give values within its range."
        )
    if wanted.kind == "f" and not np.isfinite(cast).all():
        bad = np.flatnonzero(~np.isfinite(cast.reshape(len(cast), -1)).all(axis=1))
        raise ValueError(
            f"{where} holds NaN or infinite values, first in input {bad[0]} ({len(bad)} of {len(cast)} inputs). "
            f"Their predictions cannot be accounted for: remove or repair these inputs."
        )
    return cast
