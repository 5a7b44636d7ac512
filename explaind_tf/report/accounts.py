"""What a section of the report asks a run."""

from typing import Any

import numpy as np
import xarray as xr

from explaind_tf.attribution import Run
from explaind_tf.measurements import Measurement


def balanced_ledger(run: Run, x: Any, measurement: Measurement, axis: str, **options: Any) -> xr.Dataset:
    """Return a ledger with one axis beside input and output.

    Raises
    ------
    UnbalancedLedgerError
        If it does not balance to its tolerance.
    """
    found = run.attribute(x, measurement, axes=(axis,), **options)
    assert isinstance(found, xr.Dataset)  # trees come of the parameter axis alone
    found.explaind.check()
    return found


def first_row_of_ids(run: Run) -> dict[Any, int]:
    """Return where each sample, by its id, is stored; of one with several contents, the first."""
    positions, rows = np.unique(run.samples.id_of_row, return_index=True)
    ids = run.samples.ids.tolist()
    return {ids[position]: int(row) for position, row in zip(positions, rows, strict=True)}
