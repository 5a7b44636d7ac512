"""Labels of answers: the coordinates of their axes, and where they come from."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.measurements import Measurement
from explaind_tf.questions.question import Question
from explaind_tf.runs import WeightPath


def coordinates_of(
    run: WeightPath, question: Question, measurement: Measurement, lengths: Mapping[str, int]
) -> dict[str, Any]:
    """Return the coordinates of the axes that a question keeps.

    Parameters
    ----------
    run, question, measurement
        What was asked.
    lengths : mapping of str to int
        The length of each axis.

    Raises
    ------
    ValueError
        If the measurement's names are not as many as its outputs.
    """
    coordinates: dict[str, Any] = {
        names.INPUT: np.arange(lengths[names.INPUT]),
        names.OUTPUT: output_labels(measurement, lengths[names.OUTPUT]),
    }
    if question.keeps_samples:
        coordinates[names.SAMPLE] = _labels(run.samples.ids)
    if question.keeps_tokens:
        coordinates[names.TOKEN] = np.arange(lengths[names.TOKEN])
    if question.groups is not None:
        coordinates[names.GROUP] = _labels(question.groups.labels)
    if question.keeps_layers:
        coordinates[names.LAYER] = _labels(question.layers)
    if question.keeps_steps:
        coordinates[names.STEP] = np.arange(question.stop - lengths[names.STEP], question.stop)
    return coordinates


def output_labels(measurement: Measurement, outputs: int) -> np.ndarray:
    """Return the labels of a measurement's outputs: its own, or numbers.

    Raises
    ------
    ValueError
        If it names another number of outputs.
    """
    labels = measurement.output_names
    if labels is None:
        return np.arange(outputs)
    if len(labels) != outputs:
        raise ValueError(
            f"The measurement has {len(labels)} output_names and returns {outputs} outputs. Give one name for each output."
        )
    return _labels(labels)


def provenance(run: WeightPath, question: Question, measurement: Measurement) -> dict[str, Any]:
    """Return the attributes that say what was asked, of which run, and with which versions."""
    return {
        "run_id": run.run_id,
        "measurement": measurement.name,
        "first_step": question.first,
        "last_step": question.stop - 1,
        "level": run.level,
        "precision_of_analysis": question.dtype.name,
        "explaind_tf": names.VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _labels(values: Any) -> np.ndarray:
    """Return labels as an array. Strings become objects: zarr has no stable type for strings of fixed length."""
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind == "U" else array
