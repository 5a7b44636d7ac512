"""Summaries for TensorBoard, written while a training is recorded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explaind_tf.event_file import EventFile
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.step_records import StepRecord


class StepSummaries:
    """Writes, for each recorded step, its learning rate and how far it moved the weights of each layer.

    Parameters
    ----------
    directory : str, Path or None
        Log directory of TensorBoard; None if nothing is to be written. The file is opened for the first step after
        :meth:`close`, too.
    variables : sequence of VariableSpec
        The trainable variables, in the order of θ.
    """

    def __init__(self, directory: str | Path | None, variables: Sequence[VariableSpec]) -> None:
        self._directory = directory
        self._file: EventFile | None = None
        self._layers = [variable.layer for variable in variables]
        self._starts = np.cumsum([0, *(variable.size for variable in variables)])[:-1]

    def write(self, record: StepRecord, before: np.ndarray, after: np.ndarray) -> None:
        """Write one step from its record, and the weights before it and after it, each of shape (D,)."""
        if self._directory is None:
            return
        if self._file is None:
            self._file = EventFile(self._directory)
        displacement = after - before
        squares = np.add.reduceat(np.square(displacement, dtype=np.float64), self._starts)
        by_layer: dict[str, float] = {}
        for layer, square in zip(self._layers, squares.tolist(), strict=True):
            by_layer[layer] = by_layer.get(layer, 0.0) + square
        norms = {f"displacement/{layer}": square**0.5 for layer, square in by_layer.items()}
        self._file.scalars({"recording/learning_rate": record.learning_rate} | norms, record.step)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None
