"""Turns accumulated entries into a labelled ledger: an ``xarray.Dataset`` or, by weight, a ``DataTree``."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.book import Book
from explaind_tf.ledgers.labels import coordinates_of, provenance
from explaind_tf.ledgers.node_paths import node_path
from explaind_tf.measurements import Measurement
from explaind_tf.questions.question import Question
from explaind_tf.runs import WeightPath
from explaind_tf.terms import OUTPUT_DESCRIPTIONS, SAMPLE_DESCRIPTIONS, term


@dataclass(frozen=True)
class Result:
    """The entries of an answer, without labels.

    Attributes
    ----------
    book : Book
        The entries.
    movement : np.ndarray
        Farthest that any output of an input got from its initial value, shape (inputs,), units of the measurement.
    nodes : int
        Number of quadrature nodes used, over all inputs and steps.
    method : str
        The sweeps, in words.
    unexplained : tuple of int
        The steps that the optimizer's law does not explain.
    diagnosis : str or None
        Why it does not balance, in words; None if it does.
    """

    book: Book
    movement: np.ndarray
    nodes: int
    method: str
    unexplained: tuple[int, ...] = ()
    diagnosis: str | None = None


def build_ledger(
    run: WeightPath, question: Question, measurement: Measurement, result: Result
) -> xr.Dataset | xr.DataTree:
    """Label a result.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        A tree if the parameter axis is kept. It has totals at the root and a node for each variable under its path.
        No node has the name of a ledger's variable or dimension: a layer called ``output`` is the node ``output_``.
    """
    coordinates = coordinates_of(run, question, measurement, result.book.lengths) | _movement(result)
    attributes = _attributes(run, question, measurement, result)
    book = result.book
    descriptions = OUTPUT_DESCRIPTIONS | {name: term(name).description for name in question.terms}
    if question.options.conditioning:
        descriptions |= SAMPLE_DESCRIPTIONS
    arrays = {
        name: xr.DataArray(
            book.arrays[name],
            dims=book.dims(name),
            attrs={"long_name": description, "measurement": measurement.name},
        )
        for name, description in descriptions.items()
    }
    if not question.keeps_parameters:
        return xr.Dataset(arrays, coordinates, attributes)
    by_parameter = {name: array for name, array in arrays.items() if names.PARAMETER in array.dims}
    totals = {name: array for name, array in arrays.items() if name not in by_parameter}
    tree: dict[str, xr.Dataset] = {"/": xr.Dataset(totals, coordinates, attributes)}
    start = 0
    for variable in run.manifest.variables:
        stop = start + variable.size
        tree[node_path(variable.path)] = xr.Dataset(
            {
                name: _unflatten(array.isel({names.PARAMETER: slice(start, stop)}), variable.shape)
                for name, array in by_parameter.items()
            }
        )
        start = stop
    return xr.DataTree.from_dict(tree)


def _unflatten(array: xr.DataArray, shape: tuple[int, ...]) -> xr.DataArray:
    axis = array.dims.index(names.PARAMETER)
    values = array.values.reshape(array.shape[:axis] + shape + array.shape[axis + 1 :])
    weight_dims = tuple(f"axis_{i}" for i in range(len(shape)))
    dims = array.dims[:axis] + weight_dims + array.dims[axis + 1 :]
    return xr.DataArray(values, dims=dims, attrs=array.attrs)


def _movement(result: Result) -> dict[str, Any]:
    told = {"long_name": "farthest that any output got from its initial value during training"}
    return {names.MOVEMENT: (names.INPUT, result.movement, told)}


def _attributes(
    run: WeightPath, question: Question, measurement: Measurement, result: Result
) -> dict[str, Any]:
    diagnosis = {} if result.diagnosis is None else {names.DIAGNOSIS: result.diagnosis}
    return {
        **provenance(run, question, measurement),
        "tolerance": question.tolerance,
        "method": result.method,
        "quadrature_nodes": result.nodes,
        "unexplained_steps": list(result.unexplained),
        "data_holds": _what_data_holds(question),
        "step_of": question.options.step_of if question.keeps_samples else "effect",
        **diagnosis,
    }


def _what_data_holds(question: Question) -> str:
    if names.ROUNDING in question.terms:
        return "the sum over samples; what it leaves of the gradient that the optimizer used is in rounding"
    return "all of the gradient that the optimizer used, with its rounding"
