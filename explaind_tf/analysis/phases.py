"""Phases of a training: when it memorises and generalises, and which layers and causes act in each phase."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from explaind_tf import constants as names

TERM = "term"


@dataclass(frozen=True)
class Phases:
    """The phases of a training that generalises after it has memorised.

    Attributes
    ----------
    memorised : int
        The first step that begins with the training accuracy reached.
    generalised : int
        The first step that begins with the validation accuracy reached, too.
    last : int
        Number of steps of the training.
    """

    memorised: int
    generalised: int
    last: int

    @property
    def windows(self) -> dict[str, range]:
        """Steps by phase; a phase without a step is left out."""
        parts = {
            "memorisation": range(self.memorised),
            "generalisation": range(self.memorised, self.generalised),
            "after": range(self.generalised, self.last),
        }
        return {name: steps for name, steps in parts.items() if len(steps)}


def first_reaching(steps: Sequence[int], values: npt.ArrayLike, level: float) -> int | None:
    """Return the first step at which a curve reaches a level.

    Parameters
    ----------
    steps : sequence of int
        Steps at which it was measured, ascending.
    values : array, shape (steps,)
        The curve.
    level : float
        The value to reach or to exceed.

    Returns
    -------
    int or None
        The first of the steps; None if the level is never reached.
    """
    reached = np.flatnonzero(np.asarray(values) >= level)
    return int(steps[reached[0]]) if len(reached) else None


def find_phases(
    steps: Sequence[int],
    training: npt.ArrayLike,
    validation: npt.ArrayLike,
    *,
    memorised: float = 1.0,
    generalised: float = 0.99,
) -> Phases | None:
    """Divide a training at the steps where its accuracies reach their levels.

    Parameters
    ----------
    steps : sequence of int
        Steps at which the accuracies were measured; the last one is the number of steps.
    training, validation : array
        Accuracies, from 0 to 1.
    memorised, generalised : float
        The levels of each.

    Returns
    -------
    Phases or None
        None if a level is never reached, or if validation reaches its level before training does.
    """
    first = first_reaching(steps, training, memorised)
    second = first_reaching(steps, validation, generalised)
    if first is None or second is None or second < first:
        return None
    return Phases(first, second, int(steps[-1]))


def influence(ledger: xr.Dataset) -> xr.DataArray:
    """Return the change through each layer in each step: the sum of the terms that have a layer axis.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with the axes ``layer`` and ``step``.

    Returns
    -------
    xarray.DataArray
        Dimensions ``input``, ``output``, ``layer``, ``step``.
    """
    terms = [ledger[term] for term in ledger.explaind.terms if names.LAYER in ledger[term].dims]
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def layer_shares(ledger: xr.Dataset, window: int = 1) -> xr.DataArray:
    """Return each layer's share of the change of predictions, over training.

    It is the mean over inputs and outputs of the absolute change through a layer during a window of steps, as a share of
    the sum over layers. Absolute, so layers that work against each other do not cancel.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with the axes ``layer`` and ``step``.
    window : int
        Steps in a window; those of an incomplete last window are left out.

    Returns
    -------
    xarray.DataArray
        Dimensions ``layer`` and ``step`` (the first of each window); sums to 1 over layers.
    """
    absolute = abs(_windowed(influence(ledger), window)).mean([names.INPUT, names.OUTPUT])
    return absolute / absolute.sum(names.LAYER)


def balance(ledger: xr.Dataset, window: int = 1) -> xr.DataArray:
    """Return the change by each term in each window of steps, as the mean over inputs and outputs.

    Parameters
    ----------
    ledger : xarray.Dataset
        A ledger with the axis ``step``; other axes are summed over.
    window : int
        Steps in a window; those of an incomplete last window are left out.

    Returns
    -------
    xarray.DataArray
        Dimensions ``term`` and ``step``, in the units of the measurement.
    """
    kept = (names.INPUT, names.OUTPUT, names.STEP)
    found = {}
    for term in ledger.explaind.terms:
        array = ledger[term]
        summed = array.sum([dim for dim in array.dims if dim not in kept])
        found[term] = _windowed(summed, window).mean([names.INPUT, names.OUTPUT])
    return xr.concat(list(found.values()), dim=TERM).assign_coords({TERM: list(found)})


def _windowed(array: xr.DataArray, window: int) -> xr.DataArray:
    coarse = array.coarsen({names.STEP: window}, boundary="trim", coord_func="min")
    return coarse.sum()  # type: ignore[attr-defined]
