"""From accumulated entries to a labelled ledger: an ``xarray.Dataset`` or, by weight, a ``DataTree``."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.attribution.engine import Result
from explaind_tf.measurements import Measurement
from explaind_tf.questions.question import Question
from explaind_tf.runs import WeightPath

_DESCRIPTIONS = {
    names.INITIAL: "measurement before training",
    names.FINAL: "measurement after training",
    names.DATA: "change by the gradients of training samples",
    names.WEIGHT_DECAY: "change by weight decay",
    names.REGULARIZER: "change by the gradients of loss regularisers",
    names.CARRYOVER: "change by momentum from before the recorded run",
    names.EXTERNAL: "change by weights that something other than the optimizer set",
    names.WEIGHTS: "change by the displacement of trained weights, its causes not told apart",
    names.STATE: "change by the drift of non-trainable variables (BatchNorm statistics)",
    names.RESIDUAL: "what the other entries do not explain: quadrature error and rounding",
}


# A node cannot be called like a variable of the node above, or a dimension that comes from there.
_TAKEN = frozenset((*_DESCRIPTIONS, *names.AXES, names.INPUT, names.OUTPUT, names.MOVEMENT))


def build_ledger(
    run: WeightPath, question: Question, measurement: Measurement, result: Result
) -> xr.Dataset | xr.DataTree:
    """Label a result.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        A tree if the parameter axis is kept: totals at the root, and a node for each variable under its path
        (a layer called ``output`` is the node ``output_``: no node is called like a variable or dimension).
    """
    coordinates = _coordinates(run, question, measurement, result)
    attributes = _attributes(run, question, measurement, result)
    entries = result.entries
    arrays = {
        term: xr.DataArray(
            entries.arrays[term],
            dims=entries.dims(term),
            attrs={"long_name": _DESCRIPTIONS[term], "measurement": measurement.name},
        )
        for term in (names.INITIAL, names.FINAL, *question.terms)
    }
    if not question.keeps_parameters:
        return xr.Dataset(arrays, coordinates, attributes)
    by_parameter = {term: array for term, array in arrays.items() if names.PARAMETER in array.dims}
    totals = {term: array for term, array in arrays.items() if term not in by_parameter}
    tree: dict[str, xr.Dataset] = {"/": xr.Dataset(totals, coordinates, attributes)}
    start = 0
    for variable in run.manifest.variables:
        stop = start + variable.size
        tree[node_path(variable.path)] = xr.Dataset(
            {
                term: _unflatten(array.isel({names.PARAMETER: slice(start, stop)}), variable.shape)
                for term, array in by_parameter.items()
            }
        )
        start = stop
    return xr.DataTree.from_dict(tree)


def node_path(path: str) -> str:
    """Return where a variable is in a tree: under its path, with an underscore after what is a name in ledgers."""
    return "/".join(f"{part}_" if part in _TAKEN else part for part in path.split("/"))


def _unflatten(array: xr.DataArray, shape: tuple[int, ...]) -> xr.DataArray:
    axis = array.dims.index(names.PARAMETER)
    values = array.values.reshape(array.shape[:axis] + shape + array.shape[axis + 1 :])
    weight_dims = tuple(f"axis_{i}" for i in range(len(shape)))
    dims = array.dims[:axis] + weight_dims + array.dims[axis + 1 :]
    return xr.DataArray(values, dims=dims, attrs=array.attrs)


def _coordinates(
    run: WeightPath, question: Question, measurement: Measurement, result: Result
) -> dict[str, Any]:
    entries = result.entries
    inputs, outputs = entries.arrays[names.INITIAL].shape
    labels = measurement.output_names
    if labels is not None and len(labels) != outputs:
        raise ValueError(f"The measurement names {len(labels)} outputs and returns {outputs}.")
    coordinates: dict[str, Any] = {
        names.INPUT: np.arange(inputs),
        names.OUTPUT: np.arange(outputs) if labels is None else _labels(labels),
        names.MOVEMENT: (
            names.INPUT,
            result.movement,
            {"long_name": "largest distance of any output from its initial value during training"},
        ),
    }
    if question.keeps_samples:
        coordinates[names.SAMPLE] = _labels(run.samples.ids)
    if question.keeps_tokens:
        coordinates[names.TOKEN] = np.arange(entries.arrays[names.DATA].shape[3])
    if question.groups is not None:
        coordinates[names.GROUP] = _labels(question.groups.labels)
    if question.keeps_layers:
        coordinates[names.LAYER] = _labels(question.layers)
    if question.keeps_steps:
        length = dict(zip(entries.dims(names.RESIDUAL), entries.arrays[names.RESIDUAL].shape, strict=True))
        coordinates[names.STEP] = np.arange(question.stop - length[names.STEP], question.stop)
    return coordinates


def _labels(values: Any) -> np.ndarray:
    """Return labels as an array; strings as objects, which zarr has a stable type for (not for fixed lengths)."""
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind == "U" else array


def _attributes(
    run: WeightPath, question: Question, measurement: Measurement, result: Result
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "measurement": measurement.name,
        "tolerance": question.tolerance,
        "method": result.method,
        "quadrature_nodes": result.nodes,
        "first_step": question.first,
        "last_step": question.stop - 1,
        "step_of": question.step_of if question.keeps_samples else "effect",
        "explaind_tf": names.VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
