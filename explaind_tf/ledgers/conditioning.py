"""The share of samples' entries that rests on weights whose batch gradient nearly cancelled."""

import xarray as xr

from explaind_tf import constants as names

# Entries of which more than this share rests on such weights are counted in reports and in the shell.
DOUBTFUL = 0.1
_KEPT = (names.INPUT, names.OUTPUT, names.SAMPLE)


def share_of_cancelled(ledger: xr.Dataset) -> xr.DataArray:
    """Return the share, dims (input, output, sample); see ``ledger.explaind.conditioning()``.

    Raises
    ------
    ValueError
        If the ledger was made without ``conditioning=True``.
    """
    if names.CANCELLED not in ledger:
        raise ValueError(
            "This ledger does not say which entries rest on cancelled gradients. Ask for it: "
            'run.attribute(x, axes=("sample",), conditioning=True).'
        )
    cancelled = ledger[names.CANCELLED]
    size = abs(cancelled) + abs(by_sample(ledger[names.DATA]) - cancelled)
    return (abs(cancelled) / size.where(size > 0, 1.0)).transpose(*_KEPT).rename("conditioning")


def by_sample(entries: xr.DataArray) -> xr.DataArray:
    """Return entries summed over all dimensions but input, output and sample."""
    return entries.sum([dim for dim in entries.dims if dim not in _KEPT]).transpose(*_KEPT)
