"""Find arrays that look like pictures, and scale them to [0, 1]."""

from collections.abc import Sequence

import numpy as np


def find_picture(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the first array that looks like a picture, with values in [0, 1], or None if there is none.

    Parameters
    ----------
    arrays : sequence of np.ndarray
        The arrays of one input or sample. A picture has the shape (height, width, 1 or 3).

    Returns
    -------
    np.ndarray or None
        Bytes are divided by 255, and values in [0, 1] stay as they are. Others (standardised images) are scaled so that
        the darkest value is 0 and the brightest 1.
    """
    picture = next((a for a in arrays if a.ndim == 3 and a.shape[2] in (1, 3) and min(a.shape[:2]) > 1), None)
    if picture is None or picture.dtype != np.uint8:
        return picture if picture is None else _stretched(picture.astype(np.float32))
    return picture.astype(np.float32) / 255


def _stretched(picture: np.ndarray) -> np.ndarray:
    low, high = float(picture.min()), float(picture.max())
    return picture if low >= 0 and high <= 1 else (picture - low) / ((high - low) or 1)
