"""Write numbers, tables and pictures for TensorBoard."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError

# In pixels. Pictures of samples (of digits, say) are often too small to be recognised.
_LEAST_HEIGHT = 96
_GAP = 2


class EventFile:
    """One event file in a log directory of TensorBoard; nothing else in the directory is touched.

    Parameters
    ----------
    directory : str or Path
        The log directory, created if it does not exist.

    Raises
    ------
    RefusedError
        If TensorBoard is not installed: TensorFlow needs it to write scalars and images.
    """

    def __init__(self, directory: str | Path) -> None:
        check_installed()
        self._writer = tf.summary.create_file_writer(str(directory))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers."""
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)

    def text(self, name: str, columns: Sequence[str], rows: Iterable[Sequence[object]], step: int) -> None:
        """Write a table, which TensorBoard reads as Markdown."""
        lines = [columns, ["---"] * len(columns), *rows]
        table = "\n".join(f"| {' | '.join(_plain(cell) for cell in line)} |" for line in lines)
        with self._writer.as_default(step=step):
            tf.summary.text(name, table)

    def images(self, name: str, pictures: Sequence[np.ndarray], step: int, description: str = "") -> None:
        """Write pictures side by side, values in [0, 1], each (height, width, 1 or 3), all of one height."""
        with self._writer.as_default(step=step):
            tf.summary.image(name, strip(pictures)[None], description=description)

    def flush(self) -> None:
        """Write buffered events to the file."""
        self._writer.flush()

    def close(self) -> None:
        """Write buffered events and close the file."""
        self._writer.close()


def check_installed() -> None:
    """Raise an error if TensorBoard is missing, before anything takes long.

    Raises
    ------
    RefusedError
        If TensorBoard is missing. The message says what to install.
    """
    if not hasattr(tf.summary, "scalar"):
        raise RefusedError(
            "TensorFlow found no TensorBoard, which it needs to write event files. Install it with: "
            'pip install tensorboard, or pip install "explaind_tf[tensorboard]"'
        )


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return pictures of one height side by side, enlarged if they are small, shape (height, width, 3)."""
    colored = [np.broadcast_to(p, (*p.shape[:2], 3)) for p in pictures]
    zoom = -(-_LEAST_HEIGHT // colored[0].shape[0])
    gap = np.ones((zoom * colored[0].shape[0], _GAP, 3), np.float32)
    large = [np.repeat(np.repeat(p.astype(np.float32), zoom, axis=0), zoom, axis=1) for p in colored]
    return np.concatenate([part for picture in large for part in (picture, gap)][:-1], axis=1)


def _plain(cell: object) -> str:
    text = f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|").replace("\n", " ")
