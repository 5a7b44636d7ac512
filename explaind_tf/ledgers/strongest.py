"""The samples that moved, or would move, each measurement most."""

import numpy as np
import xarray as xr

from explaind_tf import constants as names

_KEPT = (names.INPUT, names.OUTPUT)


def strongest(values: xr.DataArray, k: int, *, descending: bool) -> xr.Dataset:
    """Return the k samples of each measurement with the largest values, or the smallest.

    Parameters
    ----------
    values : xarray.DataArray
        Dims (input, output, sample).
    k : int
        How many.
    descending : bool
        Whether to begin with the largest.

    Raises
    ------
    ValueError
        If k is no positive number.
    """
    if not isinstance(k, int) or k < 1:
        raise ValueError(f"k must be a positive number of samples; got {k!r}.")
    order = np.argsort(-values.values if descending else values.values, axis=-1, kind="stable")[..., :k]
    dims = (*_KEPT, "rank")
    return xr.Dataset(
        {
            names.SAMPLE: (dims, values[names.SAMPLE].values[order]),
            "influence": (dims, np.take_along_axis(values.values, order, axis=-1)),
        },
        {dim: values[dim] for dim in _KEPT} | {"rank": np.arange(order.shape[-1])},
    )
