"""Reads an answer: the numbers that the page shows, and that the copied Python gives."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from explaind_tf import constants as names


class Entry(NamedTuple):
    """A sample, input, layer or step with its number."""

    key: Any
    value: float


class Balance(NamedTuple):
    """What an answer accounts for, as the mean over its inputs, in units of the measurement.

    Attributes
    ----------
    initial, final : float
        The measurement before and after training.
    terms : dict of str to float
        The change by each cause.
    residual_share : float
        The largest residual of any input and output, as a share of the movement of its input.
    """

    initial: float
    final: float
    terms: dict[str, float]
    residual_share: float


def balance_of(ledger: xr.Dataset, output: int) -> Balance:
    """Return what a ledger accounts for."""

    def mean(array: xr.DataArray) -> float:
        return float(array.isel({names.OUTPUT: output}).mean(names.INPUT))

    totals = {name: ledger.explaind.total(name) for name in ledger.explaind.terms}
    share = np.abs(totals[names.RESIDUAL]) / ledger[names.MOVEMENT]
    return Balance(
        mean(ledger[names.INITIAL]),
        mean(ledger[names.FINAL]),
        {name: mean(total) for name, total in totals.items()},
        float(np.nan_to_num(share.values).max()),
    )


def entries_of(
    ledger: xr.Dataset, output: int, *, step: int | None = None, layer: str | None = None
) -> xr.DataArray:
    """Return what each training sample did, dims (sample,): the mean over the inputs, in units of the measurement.

    Parameters
    ----------
    ledger : xarray.Dataset
        By sample.
    output : int
        Position of the output.
    step, layer : int and str, optional
        Only in this step, only through this layer.
    """
    found = ledger[names.DATA].isel({names.OUTPUT: output}).mean(names.INPUT)
    for axis, chosen in ((names.STEP, step), (names.LAYER, layer)):
        if chosen is not None and axis in found.dims:
            found = found.sel({axis: chosen})
    return found.sum([dim for dim in found.dims if dim != names.SAMPLE])


def strongest(entries: xr.DataArray, most: int) -> tuple[list[Entry], list[Entry]]:
    """Return the samples with the largest entries above zero, and those with the smallest below, the strongest first."""
    values, keys = entries.values, entries[names.SAMPLE].values.tolist()
    order = np.argsort(-values, kind="stable")
    raised = [Entry(keys[i], float(values[i])) for i in order[:most] if values[i] > 0]
    lowered = [Entry(keys[i], float(values[i])) for i in order[::-1][:most] if values[i] < 0]
    return raised, lowered


def by_axis(ledger: xr.Dataset, axis: str, output: int, samples: Sequence[Any] | None = None) -> list[Entry]:
    """Return the change in each step or through each layer; of some samples alone, if they are given."""
    if samples is not None:
        found = _of_samples(ledger, samples, output).mean(names.INPUT)
        whole = found.sum([dim for dim in found.dims if dim != axis])
    else:
        parts = [ledger[name] for name in ledger.explaind.terms if axis in ledger[name].dims]
        means = [part.isel({names.OUTPUT: output}).mean(names.INPUT) for part in parts]
        summed = [one.sum([dim for dim in one.dims if dim != axis]) for one in means]
        whole = sum(summed[1:], start=summed[0])
    return [
        Entry(key, float(value)) for key, value in zip(whole[axis].values.tolist(), whole.values, strict=True)
    ]


class Reached(NamedTuple):
    """An input that samples helped or hurt.

    Attributes
    ----------
    position : int
        The input.
    value : float
        What the samples did to its measurement, in its units.
    step : int or None
        The step in which they did most of it, None if the answer does not say.
    """

    position: int
    value: float
    step: int | None


def reached(
    ledger: xr.Dataset, samples: Sequence[Any], output: int, most: int
) -> tuple[list[Reached], list[Reached]]:
    """Return the inputs that some samples helped most, and those that they hurt most."""
    found = _of_samples(ledger, samples, output)
    has_steps = names.STEP in found.dims
    totals = found.sum([dim for dim in found.dims if dim != names.INPUT]).values
    order = np.argsort(-totals, kind="stable")

    def one(i: int) -> Reached:
        step = None
        if has_steps:
            of_input = found.isel({names.INPUT: i})
            step = int(of_input[names.STEP].values[np.abs(of_input.values).argmax()])
        return Reached(int(found[names.INPUT].values[i]), float(totals[i]), step)

    helped = [one(i) for i in order[:most] if totals[i] > 0]
    hurt = [one(i) for i in order[::-1][:most] if totals[i] < 0]
    return helped, hurt


def together(ledger: xr.Dataset, samples: Sequence[Any], output: int) -> float:
    """Return what some samples did together, the mean over the inputs."""
    return float(_of_samples(ledger, samples, output).mean(names.INPUT).sum())


def _of_samples(ledger: xr.Dataset, samples: Sequence[Any], output: int) -> xr.DataArray:
    """Return the sum of the entries of some samples, with the other axes."""
    array = ledger[names.DATA].isel({names.OUTPUT: output})
    # Much faster than to look each up by its label.
    chosen = set(samples)
    places = [i for i, key in enumerate(array[names.SAMPLE].values.tolist()) if key in chosen]
    return array.isel({names.SAMPLE: places}).sum(names.SAMPLE)


def of_tokens(ledger: xr.Dataset, sample: Any, output: int) -> np.ndarray:
    """Return what the loss of each position of a sample did, shape (tokens,), the mean over the inputs."""
    chosen = _of_samples(ledger, [sample], output).mean(names.INPUT)
    return chosen.sum([dim for dim in chosen.dims if dim != names.TOKEN]).values
