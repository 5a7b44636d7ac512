"""Reads inputs for an attribution from a file or a TFDS split, and unpickles nothing."""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any, Final
from zipfile import BadZipFile, ZipFile

import numpy as np
from numpy.lib import format as npy_format
from numpy.lib.npyio import NpzFile

from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.storage.archives import check_ratio

LABELS: Final = "y"
_INPUTS: Final = "x"
_TFDS: Final = "tfds:"
# Besides ValueError, what NumPy and zipfile raise on files that were cut or changed.
_DAMAGED: Final = (
    BadZipFile,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
    TokenError,
    zlib.error,
)


@dataclass(frozen=True)
class Inputs:
    """What was read.

    Attributes
    ----------
    x : array or nested structure of arrays
        Nested as in training.
    y : np.ndarray or None
        Labels, if there are any.
    first_row : int
        Position of the first input in the file.
    """

    x: Any
    y: np.ndarray | None
    first_row: int


def leaf_names(structure: struct.Structure, name: str = _INPUTS) -> list[str]:
    """Return the names that a structure's tensors have in a file, in flattening order.

    A single tensor has the given name. Tensors of a dict have their keys, tensors of a sequence the name and their position
    (``x0``, ``x1``). Tensors further down have their path (``query/x0``).
    """

    def named(part: struct.Structure, way: str) -> list[str]:
        if isinstance(part, struct.Leaf):
            return [way or name]
        below = f"{way}/" if way else ""
        if isinstance(part, dict):
            return [leaf for key in sorted(part) for leaf in named(part[key], f"{below}{key}")]
        return [leaf for i, item in enumerate(part) for leaf in named(item, f"{below}{name}{i}")]

    return named(structure, "")


def check_source(source: str) -> None:
    """Refuse a source that cannot be read, before anything slow begins.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or its kind cannot be read.
    """
    if _is_tfds(source):
        _tfds_parts(source)
    elif Path(source).suffix not in (".npz", ".npy"):
        raise ValueError(
            f"Inputs are read from .npz and .npy files and from tfds:NAME/SPLIT; got {source!r}. Save them with "
            f"np.savez(file, x=…, y=…)."
        )
    elif not Path(source).is_file():
        raise FileNotFoundError(f"There is no file {source}. Pass an .npz, an .npy or tfds:NAME/SPLIT.")


def read_inputs(source: str, structure: struct.Structure, rows: slice) -> Inputs:
    """Read some rows of inputs and, if there are any, their labels.

    Parameters
    ----------
    source : str
        ``FILE.npz`` with one array for each of :func:`leaf_names` and, for labels, ``y``. ``FILE.npy`` for models with
        one input. Or ``tfds:NAME/SPLIT``, whose features have their names, and its supervised pair ``x`` and ``y``.
    structure : Structure
        Structure of the run's inputs.
    rows : slice
        Which inputs, with bounds that are not negative.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file cannot be read, lacks an array or has fewer rows.
    """
    names = leaf_names(structure)
    arrays = _from_tfds(source, names, rows) if _is_tfds(source) else _from_file(Path(source), names, rows)
    x = struct.pack(structure, [arrays[name] for name in names])
    # An input that is called y is not a label.
    y = None if LABELS in names else arrays.get(LABELS)
    return Inputs(x, y, rows.start or 0)


def _is_tfds(source: str) -> bool:
    """Return whether a source is a TFDS split and not a file."""
    return source.startswith(_TFDS)


def _tfds_parts(source: str) -> tuple[str, str]:
    """Return the name and the split of ``tfds:NAME/SPLIT``; names may have a configuration, ``tfds:glue/cola/test``.

    Raises
    ------
    ValueError
        If either is missing.
    """
    name, _, split = source.removeprefix(_TFDS).rpartition("/")
    if not (name and split):
        raise ValueError(
            f"{source!r} does not name a TFDS split. Write tfds:NAME/SPLIT, as in tfds:mnist/test."
        )
    return name, split


def _from_file(path: Path, names: Sequence[str], rows: slice) -> dict[str, np.ndarray]:
    # Nothing in this package lets NumPy unpickle: a pickle can run any code.
    try:
        if path.suffix == ".npy":
            array = np.load(path, mmap_mode="r")
            return _select({_INPUTS: _checked(array, np.ndarray)}.__getitem__, [_INPUTS], names, rows)
        # Opened here, since NumPy does not close a damaged file.
        with open(path, "rb") as file:
            arrays = _checked(np.load(file), NpzFile)
            for name in {*names, LABELS} & set(arrays.files):
                _check_size(arrays.zip, name)
            return _select(arrays.__getitem__, arrays.files, names, rows)
    except _DAMAGED as error:
        raise ValueError(
            f"{path} is damaged, or is not a NumPy file: {error}. Save it again with np.savez or np.save."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _check_size(archive: ZipFile, name: str) -> None:
    """Refuse an array of an archive that does not hold the bytes that its header states: NumPy allocates them first."""
    member = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    check_ratio(member)
    with archive.open(member) as opened:
        header = npy_format.read_magic(opened)
        read = npy_format.read_array_header_1_0 if header == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read(opened)
        held = member.file_size - opened.tell()
    # Pickled objects have no size. NumPy refuses them.
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize != held:
        raise ValueError(
            f"{name} is to have the shape {shape} of {dtype}, but the file holds {held} bytes of it"
        )


def _checked(found: Any, kind: type) -> Any:
    if not isinstance(found, kind):
        raise ValueError(
            "its content is not what its name says. An .npy holds one array, an .npz several: rename the file."
        )
    return found


def _select(
    read: Callable[[str], np.ndarray], there: Sequence[str], names: Sequence[str], rows: slice
) -> dict[str, np.ndarray]:
    """Return the rows of the arrays that are needed and, if there are any, of the labels."""
    missing = [name for name in names if name not in there]
    if missing:
        raise ValueError(
            f"it lacks {missing}; it has {list(there)}. The run needs an array for each of its inputs: {list(names)}."
        )
    arrays = {name: read(name) for name in dict.fromkeys((*names, LABELS)) if name in there}
    return {name: np.array(_rows(array, rows, name)) for name, array in arrays.items()}


def _rows(array: np.ndarray, rows: slice, name: str) -> np.ndarray:
    if array.ndim == 0:
        raise ValueError(
            f"{name} is a single number; it needs a first axis of inputs: for one input, the shape (1, …)."
        )
    _check_rows(rows, len(array), name)
    return array[rows]


def _check_rows(rows: slice, count: int, name: str) -> None:
    # A slice would take fewer inputs than were asked for, without an error.
    if (rows.start or 0) >= count or (rows.stop or 0) > count:
        raise ValueError(
            f"{name} has {count} rows; rows {rows.start or 0}:{'' if rows.stop is None else rows.stop} were asked "
            f"for. Choose --rows among those that there are."
        )


def _from_tfds(source: str, names: Sequence[str], rows: slice) -> dict[str, np.ndarray]:
    name, split = _tfds_parts(source)
    import tensorflow_datasets as tfds  # takes seconds, so only when it is used

    dataset, info = tfds.load(name, split=split, with_info=True)
    count = None if rows.stop is None else rows.stop - (rows.start or 0)
    chosen = dataset.skip(rows.start or 0).take(-1 if count is None else count)
    elements = list(chosen.as_numpy_iterator())
    if not elements or (count is not None and len(elements) < count):
        # Counted only now, since it reads the whole split.
        _check_rows(rows, sum(1 for _ in dataset), source)
    features = _with_supervised(elements[0], info.supervised_keys)

    def read(key: str) -> np.ndarray:
        # One feature at a time: others may be texts, or images of several sizes, which cannot be stacked.
        values = [np.asarray(_with_supervised(element, info.supervised_keys)[key]) for element in elements]
        if len({value.shape for value in values}) > 1:
            raise ValueError(
                f"{key} has several shapes, and inputs are one array. Bring them to one shape and save them as .npz."
            )
        return np.stack(values)

    try:
        return _select(read, list(features), names, slice(None))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _with_supervised(element: Mapping[str, Any], keys: Any) -> dict[str, Any]:
    """Return an element's features, with its input and target also under the names that files use."""
    pair = dict(zip((_INPUTS, LABELS), keys, strict=False)) if keys else {}
    return {**element, **{name: element[key] for name, key in pair.items() if isinstance(key, str)}}
