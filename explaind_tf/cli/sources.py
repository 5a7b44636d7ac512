"""Where inputs come from, by name alone: what cannot be read is refused before TensorFlow is imported."""

from pathlib import Path
from typing import Final

_TFDS: Final = "tfds:"


def is_tfds(source: str) -> bool:
    """Tell whether a source is a TFDS split rather than a file."""
    return source.startswith(_TFDS)


def tfds_parts(source: str) -> tuple[str, str]:
    """Return the name and the split of ``tfds:NAME/SPLIT``; names may have a configuration, ``tfds:glue/cola/test``.

    Raises
    ------
    ValueError
        If either is missing.
    """
    name, _, split = source.removeprefix(_TFDS).rpartition("/")
    if not (name and split):
        raise ValueError(f"{source!r} names no TFDS split. Write tfds:NAME/SPLIT, as in tfds:mnist/test.")
    return name, split


def check_source(source: str) -> None:
    """Refuse what cannot be read, before anything that takes long.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or it is of another kind.
    """
    if is_tfds(source):
        tfds_parts(source)
    elif Path(source).suffix not in (".npz", ".npy"):
        raise ValueError(
            f"Inputs are read from .npz and .npy files and from tfds:NAME/SPLIT; got {source!r}."
        )
    elif not Path(source).is_file():
        raise FileNotFoundError(f"There is no file {source}.")
