"""What is accounted for, and the Python that says so."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from explaind_tf import measurements
from explaind_tf.attribution.predictions import are_probabilities, outputs_at
from explaind_tf.attribution.streaming import described
from explaind_tf.measurements import Measurement
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct

_BLOCK: Final = 256
# Smaller probabilities are no more certain.
_SMALLEST: Final = 1e-30


@dataclass(frozen=True)
class Predictions:
    """What the model says of some inputs.

    Attributes
    ----------
    predicted : np.ndarray of int or None
        The most probable class, shape (inputs,). None if the model is no classifier.
    probability : np.ndarray or None
        Its probability after training.
    log_probs : np.ndarray or None
        Log-probabilities of all classes, before and after training, shape (2, inputs, classes), in nats.
    values : np.ndarray
        All outputs, before and after training, shape (2, inputs, ...).
    are_probabilities : bool
        Whether the model returns probabilities.
    position : int or None
        For sequences, the position that is looked at.
    """

    predicted: np.ndarray | None
    probability: np.ndarray | None
    log_probs: np.ndarray | None
    values: np.ndarray
    are_probabilities: bool = False
    position: int | None = None


@dataclass(frozen=True)
class Measured:
    """What is accounted for.

    Attributes
    ----------
    measurement : Measurement
        Of all inputs.
    code : callable
        Takes positions of inputs and returns Python that makes the measurement of these.
    title : str
        What it is, in words.
    """

    measurement: Measurement
    code: Callable[[Sequence[int]], str]
    title: str

    def of(self, positions: Sequence[int]) -> Measurement:
        """Return the measurement of some inputs."""
        chosen = np.asarray(positions, int)
        return replace(self.measurement, targets=tuple(target[chosen] for target in self.measurement.targets))

    @property
    def digest(self) -> str:
        """A digest of the measurement, the same in every process."""
        found = hashlib.sha256(f"{self.measurement.name} {described(self.measurement.function)}".encode())
        for target in self.measurement.targets:
            found.update(
                f"{target.dtype.str}{target.shape}".encode() + np.ascontiguousarray(target).tobytes()
            )
        return found.hexdigest()


def predictions_of(run: WeightPath, x: Any, y: np.ndarray | None) -> Predictions:
    """Return what the model says of some inputs, before and after training."""
    flat = struct.as_batches(run.manifest.inputs, x, "inputs")
    before, after = outputs_at(run, flat, [0, len(run.steps)], _BLOCK)
    if not _is_classifier(run, after, y):
        leaves = [[np.asarray(leaf) for leaf in struct_leaves(one)] for one in (before, after)]
        joined = [np.concatenate([leaf.reshape(len(leaf), -1) for leaf in one], axis=1) for one in leaves]
        return Predictions(None, None, None, np.stack(joined).astype(np.float64))
    position = -1 if after.ndim == 3 else None
    values = np.stack([one if position is None else one[:, position] for one in (before, after)])
    values = values.astype(np.float64)
    is_distribution = are_probabilities(after)
    log_probs = np.log(np.maximum(values, _SMALLEST)) if is_distribution else _log_softmax(values)
    predicted = log_probs[1].argmax(axis=-1)
    probability = np.exp(np.take_along_axis(log_probs[1], predicted[:, None], axis=-1)[:, 0])
    return Predictions(predicted, probability, log_probs, values, is_distribution, position)


def struct_leaves(outputs: Any) -> list[Any]:
    """Return the arrays of nested outputs."""
    if isinstance(outputs, dict):
        return [leaf for key in sorted(outputs) for leaf in struct_leaves(outputs[key])]
    if isinstance(outputs, (list, tuple)):
        return [leaf for part in outputs for leaf in struct_leaves(part)]
    return [outputs]


def _is_classifier(run: WeightPath, outputs: Any, y: np.ndarray | None) -> bool:
    """Return whether a model returns classes: two outputs or more, and neither labels nor targets that say otherwise."""
    if not isinstance(outputs, np.ndarray) or outputs.ndim not in (2, 3) or outputs.shape[-1] < 2:
        return False
    if y is not None and np.asarray(y).dtype.kind == "f":
        return False
    targets = struct.leaves(run.manifest.targets)
    # A target for each output may be a number to come close to. That of a class is one number.
    are_alike = len(targets) == 1 and targets[0].shape == outputs.shape[1:]
    return are_probabilities(outputs) or not are_alike


def _log_softmax(values: np.ndarray) -> np.ndarray:
    shifted = values - values.max(axis=-1, keepdims=True)
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def by_default(predictions: Predictions) -> Measured:
    """Return what is accounted for if nobody says: the log-probability of the predicted class, or all outputs."""
    if predictions.predicted is None:
        return Measured(
            measurements.outputs(), lambda _: "xtf.measurements.outputs()", "the outputs of the model"
        )
    classes, position = predictions.predicted, predictions.position
    more = ", from_logits=False" if predictions.are_probabilities else ""
    more += "" if position is None else f", position={position}"
    return Measured(
        measurements.log_prob(classes, from_logits=not predictions.are_probabilities, position=position),
        lambda positions: f"xtf.measurements.log_prob({classes[list(positions)].tolist()}{more})",
        "the log-probability of the class that the model predicts",
    )


def as_given(measurement: Measurement) -> Measured:
    """Return a measurement that the user gave."""
    return Measured(
        measurement,
        lambda _: "measurement",
        f"the measurement {measurement.name!r}",
    )
