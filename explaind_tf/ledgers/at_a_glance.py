"""What a notebook shows of a ledger: what it is, whether it balances, and its strongest entries."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.notebooks import summary
from explaind_tf.terms import term

_STRONGEST: Final = 3
# Of these, in this order, the first that a ledger has is shown entry by entry.
_SHOWN: Final = (names.SAMPLE, names.GROUP, names.LAYER, names.STEP)


def at_a_glance(root: xr.Dataset, totals: Mapping[str, xr.DataArray], weights: bool) -> str:
    """Return HTML about a ledger.

    Parameters
    ----------
    root : xarray.Dataset
        The ledger; of a tree, its root.
    totals : mapping of str to xarray.DataArray
        Each term summed over all axes but input and output.
    weights : bool
        Whether it is split by weight.
    """
    inputs, outputs = root.sizes[names.INPUT], root.sizes[names.OUTPUT]
    axes = [dim for dim in names.AXES if dim in root.dims] + [names.PARAMETER] * weights
    rows = [
        (
            "run",
            f"{root.attrs.get('run_id', '?')}, steps {root.attrs.get('first_step')} to {root.attrs.get('last_step')}",
        ),
        ("split by", ", ".join(axes) or "cause alone"),
        ("balance", _balance(root, totals[names.RESIDUAL])),
        ("before training", f"{_mean(root[names.INITIAL]):.4g}"),
    ]
    rows += [
        (term(name).label, f"{_mean(total):+.4g}")
        for name, total in totals.items()
        if bool((total != 0).any()) or name == names.RESIDUAL
    ]
    rows += [("after training", f"{_mean(root[names.FINAL]):.4g}"), *_strongest(root)]
    many = "" if inputs * outputs == 1 else f", mean of {inputs} inputs × {outputs} outputs"
    title = f"Ledger of {root.attrs.get('measurement', 'a measurement')}{many}"
    return summary(
        title, rows, foot="ledger.explaind.plot has figures; explaind.check() refuses what does not balance."
    )


def _mean(array: xr.DataArray) -> float:
    return float(array.mean())


def _balance(root: xr.Dataset, residual: xr.DataArray) -> str:
    with np.errstate(invalid="ignore", divide="ignore"):
        share = float(np.nan_to_num((abs(residual) / root[names.MOVEMENT]).values).max())
    tolerance = float(root.attrs["tolerance"])
    holds = "holds" if share <= tolerance else "does NOT hold"
    return f"{holds}: at most {share:.2g} of the movement is unexplained, tolerance {tolerance:g}"


def _strongest(root: xr.Dataset) -> list[tuple[str, str]]:
    """Return the entries that raised and lowered the measurement most."""
    axis = next((one for one in _SHOWN if one in root.dims), None)
    if axis is None:
        return []
    array: Any = sum(
        root[name].sum([dim for dim in root[name].dims if dim not in (axis, names.INPUT, names.OUTPUT)])
        for name in root.data_vars
        if axis in root[name].dims and name != names.CANCELLED
    )
    values = array.mean([names.INPUT, names.OUTPUT])
    order = np.argsort(-values.values, kind="stable")
    sides = (("raised it most", order[:_STRONGEST], 1), ("lowered it most", order[::-1][:_STRONGEST], -1))
    return [
        (
            f"{axis}s that {words}",
            ", ".join(
                f"{values[axis].values[i]} ({float(values[i]):+.3g})"
                for i in chosen
                if np.sign(float(values[i])) == sign
            )
            or "none",
        )
        for words, chosen, sign in sides
    ]
