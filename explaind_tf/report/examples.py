"""How one input or training sample is shown: as a picture, as numbers, or as a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from explaind_tf.pictures import find_picture

_VALUES_SHOWN: Final = 8


@dataclass(frozen=True)
class Example:
    """An input or a training sample, as the reader sees it.

    Attributes
    ----------
    text : str
        Its label, for example, or the sample itself if it is a text.
    image : np.ndarray, optional
        Values in [0, 1], shape (height, width, 1 or 3).
    table : sequence of (str, str), optional
        Names and values, for a sample that is a row of a table.
    """

    text: str
    image: np.ndarray | None = None
    table: Sequence[tuple[str, str]] = ()


def example_of(arrays: Sequence[np.ndarray], text: str) -> Example:
    """Return a picture if an array looks like one, otherwise the first numbers.

    Parameters
    ----------
    arrays : sequence of np.ndarray
        The arrays of one input or sample.
    text : str
        What is said of it.
    """
    image = find_picture(arrays)
    if image is not None:
        return Example(text, image)
    values = [value for array in arrays for value in array.reshape(-1)[:_VALUES_SHOWN]][:_VALUES_SHOWN]
    rest = sum(array.size for array in arrays) - len(values)
    more = [("…", f"{rest:,} more")] if rest else []
    return Example(text, table=[*((str(i), f"{value:.3g}") for i, value in enumerate(values)), *more])
