"""Arrays that look like pictures, as pictures."""

from collections.abc import Sequence

import numpy as np


def find_picture(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the first of some arrays that looks like a picture, with values in [0, 1]; None if there is none.

    Parameters
    ----------
    arrays : sequence of np.ndarray
        Of one input or sample. A picture is of shape (height, width, 1 or 3).

    Returns
    -------
    np.ndarray or None
        Bytes as shares of 255, values in [0, 1] as they are, others (standardised ones) from the darkest to the brightest.
    """
    picture = next((a for a in arrays if a.ndim == 3 and a.shape[2] in (1, 3) and min(a.shape[:2]) > 1), None)
    if picture is None or picture.dtype != np.uint8:
        return picture if picture is None else _stretched(picture.astype(np.float32))
    return picture.astype(np.float32) / 255


def _stretched(picture: np.ndarray) -> np.ndarray:
    low, high = float(picture.min()), float(picture.max())
    return picture if low >= 0 and high <= 1 else (picture - low) / ((high - low) or 1)
