"""The function that draws ledgers. It is registered here, since imports may not lead up to the report."""

from collections.abc import Callable
from typing import Any

import xarray as xr

Plotter = Callable[[xr.Dataset | xr.DataTree], Any]

_registered: list[Plotter] = []


def register(plotter: Plotter) -> None:
    """Set the function that makes the figures of a ledger. It replaces one set before.

    Parameters
    ----------
    plotter : callable
        Maps a ledger to an object whose methods draw it. It is called only when figures are asked for.
    """
    _registered[:] = [plotter]


def plots_of(ledger: xr.Dataset | xr.DataTree) -> Any:
    """Return the object whose methods draw a ledger."""
    return _registered[0](ledger)
