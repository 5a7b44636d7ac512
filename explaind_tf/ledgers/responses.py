"""Responses: how the end of training depends on the weights of samples, as an ``xarray.Dataset``."""

from collections.abc import Iterable

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.book import Entry, refuse_beyond_memory
from explaind_tf.ledgers.labels import coordinates_of, provenance
from explaind_tf.measurements import Measurement
from explaind_tf.questions.question import Question
from explaind_tf.runs import WeightPath
from explaind_tf.terms import OUTPUT_DESCRIPTIONS


def response_dims(question: Question) -> tuple[str, ...]:
    """Return the dimensions of the responses that a question asks for, in order."""
    kept = [names.SAMPLE, names.GROUP, names.TOKEN, names.LAYER, names.STEP]
    return (names.INPUT, names.OUTPUT, *(axis for axis in kept if axis in question.axes))


def add_up(entries: Iterable[Entry], question: Question, lengths: dict[str, int]) -> np.ndarray:
    """Return the sum of entries over the axes that a question does not keep.

    Parameters
    ----------
    entries : iterable of Entry
        Values of shape (inputs, O, K, ...), with members.
    question : Question
        Says which axes are kept.
    lengths : dict of str to int
        Lengths of the axes by name.

    Raises
    ------
    MemoryError
        If the array would take more memory than is allowed.
    """
    dims = response_dims(question)
    refuse_beyond_memory({names.RESPONSE: dims}, lengths)
    found = np.zeros([lengths[dim] for dim in dims])
    for entry in entries:
        array = found[entry.inputs]
        if question.keeps_steps:
            array = array[..., entry.step - question.first]
        if entry.members is None:
            array += entry.values
            continue
        if question.keeps_tokens:
            array = array[:, :, :, : entry.values.shape[3]]
        # A sample may occur twice in a batch. Fancy-indexed += would count it once.
        np.add.at(np.moveaxis(array, 2, 0), entry.members, np.moveaxis(entry.values, 2, 0))
    return found


def build_responses(
    run: WeightPath, question: Question, measurement: Measurement, values: np.ndarray, final: xr.DataArray
) -> xr.Dataset:
    """Label responses.

    Parameters
    ----------
    run : WeightPath
        The run.
    question : Question
        What was asked.
    measurement : Measurement
        What was measured.
    values : np.ndarray
        Of the dimensions :func:`response_dims`.
    final : xr.DataArray
        The measurement at the end of training, dims (input, output).
    """
    dims = response_dims(question)
    told = {"measurement": measurement.name}
    arrays = {
        names.RESPONSE: xr.DataArray(
            values,
            dims=dims,
            attrs={
                **told,
                "long_name": "derivative of the final measurement",
            },
        ),
        names.FINAL: final.assign_attrs(long_name=OUTPUT_DESCRIPTIONS[names.FINAL]),
    }
    coordinates = coordinates_of(run, question, measurement, dict(zip(dims, values.shape, strict=True)))
    return xr.Dataset(
        arrays, coordinates, {**provenance(run, question, measurement), "question": "counterfactual"}
    )
