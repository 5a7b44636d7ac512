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
from explaind_tf.runs.graphs.checked_load import load_checked
from explaind_tf.runs.graphs.loaded import saved_function
from explaind_tf.runs.graphs.training_variables import TrainingVariables


class TrainingGraph:
    """A SavedModel of the training step, together with the variables that it reads and changes.

    Parameters
    ----------
    path : Path
        The SavedModel directory, with files that were already checked. It is executed as a TensorFlow graph.
    trust : bool
        Whether operations that are not allowed are accepted. See :func:`load_checked`.

    Attributes
    ----------
    variables : TrainingVariables
        The current state of training. Set them to continue from another state.

    Raises
    ------
    RunFormatError
        If the directory does not hold a training step as a PathLogger writes it.
    """

    def __init__(self, path: Path, *, trust: bool = False) -> None:
        try:
            with _quiet():
                self._module: Any = load_checked(path, trust=trust)
            groups = {
                field.name: list(getattr(self._module, field.name)) for field in fields(TrainingVariables)
            }
            self.variables = TrainingVariables(**groups)
            self._iterations = self._module.iterations
            self._learning_rate = list(self._module.learning_rate)
            self._stepped = list(self._module.stepped)
            self._step = saved_function(self._module.step)
            weighted = getattr(self._module, "weighted_step", None)
            self._weighted = None if weighted is None else saved_function(weighted)
        except RunFormatError:
            raise
        except Exception as error:  # TensorFlow raises many kinds of errors for a file that is no such module
            raise RunFormatError(
                f"{path} cannot be loaded as a training step: {error}. Restore it from a copy."
            ) from error

    @property
    def iteration(self) -> int:
        """Number of batches that the optimizer was given."""
        return int(self._iterations.numpy())

    @property
    def weight_dtype(self) -> np.dtype | None:
        """Dtype of the weights that :meth:`train` takes beside a batch; None if it takes none."""
        if self._weighted is None:
            return None
        *_, weights = self._weighted.structured_input_signature[0]
        return np.dtype(weights.dtype.as_numpy_dtype)

    def change(self, record: StepRecord, *, keeps_floats: bool = False) -> None:
        """Make the changes that something else made before a recorded step.

        Parameters
        ----------
        record : StepRecord
            The record of the step.
        keeps_floats : bool
            Whether to set only seeds and counters.
        """
        if record.theta_before is not None and not keeps_floats:
            self.variables.set_parameters(record.theta_before)
        if record.state_before is not None:
            self.variables.set_state(record.state_before, keeps_floats=keeps_floats)

    def train(
        self, record: StepRecord, batch: Sequence[np.ndarray], weights: np.ndarray | None = None
    ) -> None:
        """Take a recorded step from the current state, with the learning rate that was used.

        Parameters
        ----------
        record : StepRecord
            The record of the step.
        batch : sequence of np.ndarray
            Inputs, targets and sample weights, flat.
        weights : np.ndarray, optional
            Weights of the samples, shape (batch,), if the data have none. The step is then that of ``fit(x, y,
            sample_weight=...)``, which may round otherwise. Default: none.
        """
        if record.updates:
            for variable in self._learning_rate:
                variable.assign(tf.cast(tf.constant(record.learning_rate, tf.float64), variable.dtype))
        tensors = [tf.convert_to_tensor(array) for array in batch]
        if weights is None:
            self._step(*tensors)
        else:
            assert self._weighted is not None  # otherwise weights were refused
            self._weighted(*tensors, tf.convert_to_tensor(weights))

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
        self.change(record)
        self.train(record, batch)
        return self.reached(record)

    def reached(self, record: StepRecord) -> tuple[Snapshot, np.ndarray | None]:
        """Return the state after a step that was just taken, as :meth:`step` does."""
        found = self.variables.snapshot()
        if not (self._stepped and record.updates):
            return found, None
        slot = (self.iteration - 1) % self._stepped[0].shape[0]
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
