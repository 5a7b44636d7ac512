"""Who draws ledgers: a room above them, the report, which the package registers here."""

from collections.abc import Callable
from typing import Any

import xarray as xr

Plotter = Callable[[xr.Dataset | xr.DataTree], Any]

_registered: list[Plotter] = []


def register(plotter: Plotter) -> None:
    """Say what makes the figures of a ledger; the last one registered does.

    Parameters
    ----------
    plotter : callable
        From a ledger to an object whose methods draw it. It is called when somebody asks for figures.
    """
    _registered[:] = [plotter]


def plots_of(ledger: xr.Dataset | xr.DataTree) -> Any:
    """Return the object whose methods draw a ledger."""
    return _registered[0](ledger)
