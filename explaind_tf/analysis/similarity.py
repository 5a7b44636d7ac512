"""Similarity of the influences of layers, and means of entries by the label of training samples."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import xarray as xr

from explaind_tf import constants as names

OTHER_LAYER = f"other_{names.LAYER}"
WINDOW = "window"


def cosines(vectors: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the cosine of the angle between every two rows.

    Parameters
    ----------
    vectors : array, shape (n, d)
        A row of zeros has no direction; its cosines are 0.

    Returns
    -------
    np.ndarray
        Shape (n, n), from -1 to 1.
    """
    rows = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    units = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return np.clip(units @ units.T, -1, 1)


def layer_cosines(influence: xr.DataArray, windows: Mapping[str, range]) -> xr.DataArray:
    """Return how alike the effects of layers on the inputs are, for each window of steps.

    A layer's vector holds its change of each input and output during the window. Two layers that raise the same
    predictions have a cosine near 1. If the cosine is near -1, one layer undoes what the other does.

    Parameters
    ----------
    influence : xarray.DataArray
        A term of a ledger, or a sum of terms, with the dimensions ``input``, ``output``, ``layer`` and ``step``.
    windows : mapping of str to range
        Names and step numbers of windows, each with at least one step.

    Returns
    -------
    xarray.DataArray
        Dimensions ``window``, ``layer``, ``other_layer``.

    Raises
    ------
    ValueError
        If a window holds no step of the ledger.
    """
    layers = influence[names.LAYER].values
    found = []
    for name, window in windows.items():
        chosen = influence.sel({names.STEP: influence[names.STEP].isin(list(window))})
        if not chosen.sizes[names.STEP]:
            raise ValueError(
                f"The window {name!r} of steps {window} holds none of the {influence.sizes[names.STEP]} steps of the "
                f"ledger. Pass windows of step numbers on its step axis."
            )
        summed = chosen.sum(names.STEP).transpose(names.LAYER, ...)
        found.append(cosines(summed.values.reshape(len(layers), -1)))
    return xr.DataArray(
        np.array(found),
        dims=(WINDOW, names.LAYER, OTHER_LAYER),
        coords={WINDOW: list(windows), names.LAYER: layers, OTHER_LAYER: layers},
    )


def mean_by_label(
    values: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], count: int
) -> npt.NDArray[np.float64]:
    """Return the mean of the entries of each label, along the last axis.

    Parameters
    ----------
    values : array, shape (..., K)
        Entries of K training samples.
    labels : array of int, shape (K,)
        From 0 to ``count - 1``.
    count : int
        Number of labels.

    Returns
    -------
    np.ndarray
        Shape (..., count).

    Raises
    ------
    ValueError
        If a label has no sample.
    """
    sizes = np.bincount(labels, minlength=count)
    if len(sizes) > count or not sizes.all():
        raise ValueError(
            f"Each of the labels 0 … {count - 1} needs a sample. Labels without one: {np.flatnonzero(sizes == 0).tolist()}; "
            f"the largest label is {labels.max()}. Number the labels from 0, and pass as count how many there are."
        )
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(sizes) - sizes
    sums: npt.NDArray[np.float64] = np.add.reduceat(values[..., order], starts, axis=-1)
    return sums / sizes
