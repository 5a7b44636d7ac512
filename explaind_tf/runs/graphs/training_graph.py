"""`TrainingGraph`: the recorded training step, loaded from the run to train steps again."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.step_records import Snapshot, StepRecord
from explaind_tf.runs.graphs.training_variables import TrainingVariables


class TrainingGraph:
    """A SavedModel of the training step, together with the variables that it reads and changes.

    Parameters
    ----------
    path : Path
        The SavedModel directory, with files that were already checked. It is executed as a TensorFlow graph.

    Attributes
    ----------
    variables : TrainingVariables
        The current state of training. Set them to continue from another state.

    Raises
    ------
    RunFormatError
        If the directory does not hold a training step as a PathLogger writes it.
    """

    def __init__(self, path: Path) -> None:
        try:
            with _quiet():
                self._module: Any = tf.saved_model.load(str(path))
            groups = {
                field.name: list(getattr(self._module, field.name)) for field in fields(TrainingVariables)
            }
            self.variables = TrainingVariables(**groups)
            self._iterations = self._module.iterations
            self._learning_rate = list(self._module.learning_rate)
            self._stepped = list(self._module.stepped)
            self._step = self._module.step.get_concrete_function()
        except Exception as error:  # TensorFlow raises many kinds of errors for a file that is no such module
            raise RunFormatError(
                f"{path} cannot be loaded as a training step: {error}. Restore it from a copy."
            ) from error

    def step(self, record: StepRecord, batch: Sequence[np.ndarray]) -> tuple[Snapshot, np.ndarray | None]:
        """Train a recorded step again, and return the state after it.

        Parameters
        ----------
        record : StepRecord
            Gives the changes made before the step by something else, and the learning rate, which callbacks may set.
        batch : sequence of np.ndarray
            Inputs, targets and sample weights, flat.

        Returns
        -------
        tuple
            The snapshot, and the weights after the update if something else changed them within the step, else None.
        """
        if record.theta_before is not None:
            self.variables.set_parameters(record.theta_before)
        if record.state_before is not None:
            self.variables.set_state(record.state_before)
        if record.updates:
            for variable in self._learning_rate:
                variable.assign(tf.cast(tf.constant(record.learning_rate, tf.float64), variable.dtype))
        iteration = int(self._iterations.numpy())
        self._step(*(tf.convert_to_tensor(array) for array in batch))
        found = self.variables.snapshot()
        if not (self._stepped and record.updates):
            return found, None
        slot = iteration % self._stepped[0].shape[0]
        stepped = np.concatenate([buffer.gather_nd([slot]).numpy().reshape(-1) for buffer in self._stepped])
        return found, None if np.array_equal(stepped, found.theta) else stepped


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence TensorFlow's warning of gradients that were not saved: a training step is never differentiated."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
