"""Reduces ledgers to the numbers of a figure, which still add up to the change."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import xarray as xr

from explaind_tf import constants as names

# More steps than this are merged: a screen has no room for more bars.
_MOST_BINS: Final = 250

_UNITS: Final = {
    "log_prob": "nats",
    "margin": "nats",
    "loss": "units of the loss",
    "outputs": "units of the output",
}


@dataclass(frozen=True)
class Bins:
    """Neighbouring steps, merged.

    Attributes
    ----------
    starts : np.ndarray of int
        Position of the first step of each bin.
    centers : np.ndarray of float
        Where each bin is drawn, in steps.
    labels : list of str
        The steps of each bin: ``"12"`` or ``"12–17"``.
    """

    starts: np.ndarray
    centers: np.ndarray
    labels: list[str]

    def total(self, values: np.ndarray) -> np.ndarray:
        """Return the sums over the steps of each bin; the last axis of the values is the step axis."""
        return np.add.reduceat(values, self.starts, axis=-1)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Return the means over the steps of each bin."""
        return self.total(values) / np.diff([*self.starts, values.shape[-1]])


@dataclass(frozen=True)
class Stacks:
    """The change in each step, split into parts that add up to it.

    Attributes
    ----------
    parts : dict of str to np.ndarray
        The change by each layer or group, shape (steps,), in the units of the measurement.
    terms : dict of str to np.ndarray
        The change by each term that has no such axis. In a dict of its own, since a layer may be called like a term.
    """

    parts: dict[str, np.ndarray]
    terms: dict[str, np.ndarray]


def bins_of(steps: np.ndarray, most: int = _MOST_BINS) -> Bins:
    """Merge neighbouring steps, as few as possible for at most ``most`` bins."""
    size = -(-len(steps) // most)
    starts = range(0, len(steps), size)
    pairs = [(int(steps[start]), int(steps[min(start + size, len(steps)) - 1])) for start in starts]
    labels = [f"{first}" if first == last else f"{first}–{last}" for first, last in pairs]
    return Bins(np.array(starts), np.array([(first + last) / 2 for first, last in pairs]), labels)


def unit_of(ledger: xr.Dataset | xr.DataTree) -> str:
    """Return the unit of a ledger's measurement; a general phrase if it has no unit of its own."""
    return _UNITS.get(str(ledger.attrs.get("measurement")), "units of the measurement")


def check_axis(ledger: xr.Dataset, axis: str) -> None:
    """Refuse a ledger that lacks an axis.

    Raises
    ------
    ValueError
        If the axis is missing; with the axes that there are, and what to ask for.
    """
    if axis not in ledger.dims:
        raise ValueError(
            f"This ledger has no {axis} axis; its axes are {dict(ledger.sizes)}. Ask for the axis: "
            f'run.attribute(…, axes=("{axis}", …)).'
        )


def of_prediction(array: xr.DataArray, input: int | None, output: Hashable | None) -> xr.DataArray:
    """Return the values of one input and output, or the mean over those not chosen.

    Raises
    ------
    KeyError
        If there is no such output.
    IndexError
        If there is no such input.
    """
    for dim, chosen in ((names.INPUT, input), (names.OUTPUT, output)):
        if dim not in array.dims:
            continue
        if chosen is None:
            array = array.mean(dim)
        else:
            array = array.isel({dim: chosen}) if dim == names.INPUT else array.sel({dim: chosen})
    return array


def over(ledger: xr.Dataset, dims: tuple[str, ...], input: int | None, output: Hashable | None) -> xr.Dataset:
    """Return each term for one prediction, or its mean over all, summed over all other dims but those given."""
    terms = {}
    for term in ledger.explaind.terms:
        array = of_prediction(ledger[term], input, output)
        terms[term] = array.sum([dim for dim in array.dims if dim not in dims])
    return xr.Dataset(terms)


def terms_by(
    ledger: xr.Dataset, axis: str, *, input: int | None = None, output: Hashable | None = None
) -> xr.Dataset:
    """Return the terms that have an axis, summed over all other axes, dims (axis,).

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with that axis.
    axis : str
        ``"layer"`` or ``"step"``.
    input, output : int and label, optional
        Which prediction; by default the mean over all.

    Raises
    ------
    ValueError
        If the ledger lacks the axis.
    """
    check_axis(ledger, axis)
    found = over(ledger, (axis,), input, output)
    return found[[term for term in found if axis in found[term].dims]]


def stacks_by_step(
    ledger: xr.Dataset, by: str, *, input: int | None = None, output: Hashable | None = None
) -> Stacks:
    """Split the change in each step into parts.

    Parameters
    ----------
    ledger : xarray.Dataset
        With a step axis, and the axis ``by`` unless that is ``"term"``.
    by : {"term", "layer", "group"}
        What the parts are; with ``"term"`` there are only terms.
    input, output : int and label, optional
        Which prediction; by default the mean over all.

    Returns
    -------
    Stacks
        Parts and terms that add up to the change in each step.

    Raises
    ------
    ValueError
        If an axis is missing.
    """
    check_axis(ledger, names.STEP)
    if by == "term":
        found = over(ledger, (names.STEP,), input, output)
        return Stacks({}, _by_step(found, list(found)))
    check_axis(ledger, by)
    found = over(ledger, (by, names.STEP), input, output)
    split = [term for term in found if by in found[term].dims]
    total = sum((found[term] for term in split[1:]), start=found[split[0]]).transpose(by, names.STEP)
    labels = [str(label) for label in ledger[by].values]
    parts = dict(zip(labels, total.values, strict=True))
    return Stacks(parts, _by_step(found, [term for term in found if term not in split]))


def _by_step(found: xr.Dataset, terms: list[Hashable]) -> dict[str, np.ndarray]:
    # A term without a step axis is not drawn by step (momentum from before the run, where samples are kept).
    return {str(term): found[term].values for term in terms if names.STEP in found[term].dims}


def strongest(parts: Mapping[str, np.ndarray], most: int, what: str) -> dict[str, np.ndarray]:
    """Keep the strongest parts, in their order, and add up the others as one."""
    if len(parts) <= most:
        return dict(parts)
    strength = sorted(parts, key=lambda name: -float(np.abs(parts[name]).sum()))
    kept = set(strength[: most - 1])
    others = [values for name, values in parts.items() if name not in kept]
    chosen = {name: values for name, values in parts.items() if name in kept}
    return chosen | {f"{len(others)} other {what}": np.sum(others, axis=0)}


def as_matrix(values: np.ndarray, most: int = 96) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the entries of a variable's weights as a matrix that a screen can show.

    Parameters
    ----------
    values : np.ndarray
        Shaped like the variable. The last axis (units, filters) gives the columns, all others the rows.
    most : int
        Most rows and columns; of more, blocks of neighbouring weights are summed.

    Returns
    -------
    tuple
        The matrix, and the numbers of rows and columns of weights in one cell.
    """
    matrix = values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(1, -1)
    block = (-(-matrix.shape[0] // most), -(-matrix.shape[1] // most))
    for axis, size in enumerate(block):
        matrix = np.add.reduceat(matrix, np.arange(0, matrix.shape[axis], size), axis=axis)
    return matrix, block
