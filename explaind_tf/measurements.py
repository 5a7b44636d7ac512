"""Measurements: the numbers of a prediction whose change the ledger accounts for.

A measurement is a function made of TensorFlow operations. It maps the model's outputs for a batch of inputs, nested
as the model returns them, to a matrix of shape (batch, O). Row i must depend on input i alone. A measurement that takes
labels needs one for each input that is attributed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Measurement:
    """A named function of the model's outputs.

    Attributes
    ----------
    name : str
        Name of the measurement in the ledger's attributes.
    function : callable
        ``(model_outputs, *targets) -> (batch, O)``.
    targets : tuple of np.ndarray
        Arrays with one entry for each input.
    output_names : sequence of str, optional
        Labels of the O columns; by default their numbers.
    """

    name: str
    function: Callable[..., tf.Tensor]
    targets: tuple[np.ndarray, ...] = ()
    output_names: Sequence[str] | None = field(default=None)

    @property
    def is_of_library(self) -> bool:
        """Whether it is a fixed function of this module, which computes the same at every call."""
        function = self.function.function if isinstance(self.function, _OfOutput) else self.function
        is_fixed = getattr(function, "__closure__", ()) is None
        return is_fixed and getattr(function, "__module__", None) == __name__

    def __call__(self, model_outputs: Any, *targets: tf.Tensor) -> tf.Tensor:
        """Return the measurement of a batch, shape (batch, O).

        Raises
        ------
        ValueError
            If the function returns another shape.
        """
        values = tf.convert_to_tensor(self.function(model_outputs, *targets))
        if values.shape.rank != 2 or values.shape[1] is None:
            raise ValueError(
                f"The measurement {self.name!r} returned the shape {values.shape}. It must return (batch, O), one row "
                f"for each input. If it has one number for each input, return values[:, None]."
            )
        return values


def as_measurement(measurement: Any) -> Measurement:
    """Return a measurement as it is, or make one from a function ``(model_outputs) -> (batch, O)``.

    Parameters
    ----------
    measurement : Measurement or callable
        A function is called with the model's outputs, nested as the model returns them.

    Returns
    -------
    Measurement
        One made from a function has the function's name, and neither targets nor output names.

    Raises
    ------
    TypeError
        If it is neither a measurement nor callable.
    """
    if isinstance(measurement, Measurement):
        return measurement
    if callable(measurement):
        return Measurement(getattr(measurement, "__name__", "custom"), measurement)
    raise TypeError(
        f"measurement must be one of explaind_tf.measurements or a function (model_outputs) -> (batch, O). "
        f"Found: {type(measurement).__name__}. For log-probabilities of the labels y, pass measurements.log_prob(y)."
    )


@dataclass(frozen=True)
class _OfOutput:
    """A function of one of the model's outputs, or of one position of it. Equal ones are compiled once."""

    measurement: str
    function: Callable[..., tf.Tensor]
    output: str | int | None
    position: int | None = None

    def __call__(self, model_outputs: Any, *targets: tf.Tensor) -> tf.Tensor:
        values = self._pick(model_outputs)
        return self.function(values if self.position is None else self._at_position(values), *targets)

    def _at_position(self, values: tf.Tensor) -> tf.Tensor:
        assert self.position is not None
        if values.shape.rank is None or values.shape.rank < 3:
            raise ValueError(
                f"{self.measurement} with position={self.position} needs an output of shape (batch, positions, ...), that "
                f"of a sequence. The model's output has the shape {values.shape}. Leave position= out."
            )
        return values[:, self.position]

    def _pick(self, model_outputs: Any) -> tf.Tensor:
        flat = tf.nest.flatten(model_outputs)
        names = list(model_outputs) if isinstance(model_outputs, dict) else []
        if self.output is None and len(flat) == 1:
            return flat[0]
        if isinstance(self.output, int) and -len(flat) <= self.output < len(flat):
            return flat[self.output]
        if self.output in names and tf.is_tensor(model_outputs[self.output]):
            return model_outputs[self.output]
        choices = f"one of {names}, or " if names else ""
        raise ValueError(
            f"{self.measurement} measures one output, and the model returns {len(flat)}. Found: output={self.output!r}. "
            f"Set output= to {choices}a position from 0 to {len(flat) - 1}, or pass a function of all outputs as "
            f"the measurement."
        )


def outputs(*, position: int | None = None) -> Measurement:
    """All outputs of the model as they are (logits, log-probabilities, ...).

    An output with several axes is flattened to (batch, O). Several outputs are put side by side (dicts by sorted key).

    Parameters
    ----------
    position : int, optional
        If the model has one output of shape (batch, positions, ...), take only this position; −1 is the last one.

    Returns
    -------
    Measurement
        In the units of the model's output.
    """
    if position is not None:
        return Measurement("outputs", _OfOutput("outputs", _flat_output, None, position))
    return Measurement("outputs", _flat_outputs)


def log_prob(
    y: Any, *, from_logits: bool = True, output: str | int | None = None, position: int | None = None
) -> Measurement:
    """Log-probability of class ``y[i]`` for input i, in nats, shape (batch, 1).

    With logits z it is z_y − log Σ_c exp(z_c). Positive entries of the ledger made the class more probable.

    Parameters
    ----------
    y : array of int, shape (inputs,)
        Class numbers.
    from_logits : bool
        True if the model returns logits, or log-probabilities (whose softmax is the same). False if it returns
        probabilities.
    output : str or int, optional
        Key or position of the output to measure, if the model has several.
    position : int, optional
        Position in the sequence, if the model returns classes at each position, (batch, positions, classes); −1 is the
        last one.

    Returns
    -------
    Measurement
        In nats.

    Raises
    ------
    ValueError
        If the labels are not whole numbers, or the model's outputs are not (batch, classes) or, with ``position``,
        (batch, positions, classes).
    """
    function = _log_prob_of_logits if from_logits else _log_of_probability
    return Measurement("log_prob", _OfOutput("log_prob", function, output, position), (_labels(y),))


def margin(y: Any, *, output: str | int | None = None) -> Measurement:
    """Margin of class ``y[i]``: its logit minus the log-sum-exp of the others, shape (batch, 1).

    With logits z it is z_y − log Σ_{c≠y} exp(z_c), the log-odds log(p / (1 − p)) of the class in nats. It is positive if
    the class has more than half of the probability. TRAK (arXiv:2303.14186) uses it as model output function.
    Positive entries of the ledger made the class more probable.

    Parameters
    ----------
    y : array of int, shape (inputs,)
        Class numbers. The model must return logits or log-probabilities.
    output : str or int, optional
        Key or position of the output to measure, if the model has several.

    Returns
    -------
    Measurement
        In nats.

    Raises
    ------
    ValueError
        If the labels are not whole numbers, or the model's outputs are not (batch, classes).
    """
    return Measurement("margin", _OfOutput("margin", _margin, output), (_labels(y),))


def loss(loss_fn: Any, y: Any, *, output: str | int | None = None) -> Measurement:
    """Loss of each input, shape (batch, 1): positive entries of the ledger raised the loss.

    Parameters
    ----------
    loss_fn : str, keras.losses.Loss or callable
        A Keras loss or ``(y_true, y_pred) -> (batch,)``. Its reduction is not used.
    y : array, shape (inputs, ...)
        Targets as in training.
    output : str or int, optional
        Key or position of the output to measure, if the model has several.

    Returns
    -------
    Measurement
        In the units of the loss. If the loss has several values for an input (a sequence), their mean.

    Raises
    ------
    ValueError
        If the loss returns one number for the whole batch.
    """
    resolved = keras.losses.get(loss_fn) if isinstance(loss_fn, str) else loss_fn
    per_input = resolved.call if isinstance(resolved, keras.losses.Loss) else resolved

    def function(model_outputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        values = tf.convert_to_tensor(per_input(targets, model_outputs))
        if values.shape.rank == 0:
            raise ValueError(
                f"The loss {loss_fn!r} returned one number for the whole batch. It must return one for each input: take "
                f"no sum or mean over the first axis."
            )
        if values.shape.rank > 1:
            values = tf.reduce_mean(values, axis=list(range(1, values.shape.rank)))
        return values[:, None]

    return Measurement("loss", _OfOutput("loss", function, output), (np.asarray(y),))


# Module functions instead of closures: a run compiles each of them once, however often it is asked.


def _flat_outputs(model_outputs: Any) -> tf.Tensor:
    flat = [_flat_output(value) for value in tf.nest.flatten(model_outputs)]
    floating = [value.dtype for value in flat if value.dtype.is_floating]
    # Masks and token numbers may be among the outputs.
    return tf.concat([tf.cast(value, floating[0] if floating else tf.float32) for value in flat], axis=1)


def _flat_output(model_outputs: tf.Tensor) -> tf.Tensor:
    size = model_outputs.shape[1:].num_elements()
    if size is None:
        raise ValueError(
            f"The model's output has the shape {model_outputs.shape}. measurements.outputs() needs the same size for every "
            f"input. Measure a part of fixed size instead, for example lambda outputs: outputs[:, -1]."
        )
    return tf.reshape(model_outputs, (-1, size))


def _log_prob_of_logits(model_outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    _check_classes("log_prob", model_outputs)
    return _pick(tf.nn.log_softmax(model_outputs), labels)[:, None]


def _log_of_probability(model_outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    _check_classes("log_prob", model_outputs)
    return tf.math.log(_pick(model_outputs, labels))[:, None]


def _margin(model_outputs: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    _check_classes("margin", model_outputs)
    own = tf.one_hot(labels, model_outputs.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    others = tf.where(own, tf.constant(-np.inf, model_outputs.dtype), model_outputs)
    return (_pick(model_outputs, labels) - tf.reduce_logsumexp(others, axis=1))[:, None]


def _labels(y: Any) -> np.ndarray:
    labels = np.asarray(y)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"y must be class numbers, integers of shape (inputs,). Found: {labels.dtype} of shape {labels.shape}. "
            f"If the labels are one-hot, pass y.argmax(axis=1)."
        )
    return labels.astype(np.int32)


def _check_classes(name: str, model_outputs: tf.Tensor) -> None:
    if model_outputs.shape.rank != 2 or (model_outputs.shape[1] or 0) < 2:
        raise ValueError(
            f"{name} needs outputs of shape (batch, classes) with two classes or more. The model returned "
            f"{model_outputs.shape}. Use measurements.outputs() instead, log_prob with position= for a sequence, or a "
            f"function of your own."
        )


def _pick(values: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    return tf.gather(values, labels, axis=1, batch_dims=1)
