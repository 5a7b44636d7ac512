"""Summaries for TensorBoard, written while a training is recorded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from explaind_tf.event_file import EventFile
from explaind_tf.runs.format.description import VariableSpec


class StepSummaries:
    """Writes, for each recorded step, its learning rate and how far it moved the weights of each layer.

    Parameters
    ----------
    directory : str or Path
        Log directory of TensorBoard.
    variables : sequence of VariableSpec
        The trainable variables, in the order of θ.
    """

    def __init__(self, directory: str | Path, variables: Sequence[VariableSpec]) -> None:
        self._file = EventFile(directory)
        self._layers = [variable.layer for variable in variables]
        self._starts = np.cumsum([0, *(variable.size for variable in variables)])[:-1]

    def write(self, step: int, learning_rate: float, displacement: np.ndarray) -> None:
        """Write one step. The displacement θ_{s+1} − θ_s has shape (D,)."""
        squares = np.add.reduceat(np.square(displacement, dtype=np.float64), self._starts)
        by_layer: dict[str, float] = {}
        for layer, square in zip(self._layers, squares.tolist(), strict=True):
            by_layer[layer] = by_layer.get(layer, 0.0) + square
        norms = {f"displacement/{layer}": square**0.5 for layer, square in by_layer.items()}
        self._file.scalars({"recording/learning_rate": learning_rate} | norms, step)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
