"""The samples that moved each measurement most, or on which it depends most."""

from abc import ABC, abstractmethod

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


class Ranked(ABC):
    """Methods of answers by sample that rank the samples."""

    @abstractmethod
    def _influence(self) -> xr.DataArray:
        """Return the influence of each sample, dims (input, output, sample).

        Raises
        ------
        ValueError
            If the answer has no sample axis.
        """

    def proponents(self, k: int = 5) -> xr.Dataset:
        """Return the k training samples that raised each measurement most; or, for responses, without which it falls most.

        Parameters
        ----------
        k : int
            How many.

        Returns
        -------
        xarray.Dataset
            ``sample`` (ids) and ``influence`` (units of the measurement, summed over all other axes), dims (input, output,
            rank), the largest first. If fewer than k samples raise a measurement, its last ranks hold samples that do not.

        Raises
        ------
        ValueError
            If the answer has no sample axis, or k is no positive number.
        """
        return strongest(self._influence(), k, descending=True)

    def opponents(self, k: int = 5) -> xr.Dataset:
        """Return the k training samples that lowered each measurement most; or, for responses, without which it rises most.

        Parameters
        ----------
        k : int
            How many.

        Returns
        -------
        xarray.Dataset
            As :meth:`proponents`, the most negative influence first.

        Raises
        ------
        ValueError
            If the answer has no sample axis, or k is no positive number.
        """
        return strongest(self._influence(), k, descending=False)
