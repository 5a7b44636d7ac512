"""The inputs that the page is about, and how inputs and samples are shown."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Final

import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.levels import SAMPLE
from explaind_tf.report.examples import Example, example_of
from explaind_tf.runs import RecordedRun, WeightPath
from explaind_tf.runs.format import structure as struct

# Training samples that are shown if there are no inputs.
_STORED: Final = 100
_MOST_TOKENS: Final = 64
_LONGEST: Final = 200


@dataclass(frozen=True)
class Inputs:
    """The inputs that the page is about.

    Attributes
    ----------
    x : array or nested structure of arrays
        As the model takes them.
    y : np.ndarray or None
        Their labels.
    first_row : int
        Number of the first input; their names count from it.
    code : sequence of str
        Lines of Python that make ``x``, all of it, and ``y`` if there is one. They may need ``run``.
    note : str
        What the inputs are, if they are not what the user gave.
    """

    x: Any
    y: np.ndarray | None = None
    first_row: int = 0
    code: Sequence[str] = ("# x: the inputs, as they were given",)
    note: str = ""


def stored_samples(run: WeightPath) -> Inputs:
    """Return some training samples of a run as inputs, evenly spaced.

    Raises
    ------
    RefusedError
        If the run stores no samples.
    """
    count = len(run.samples) if run.level == SAMPLE else 0
    if not count:
        raise RefusedError(
            f"{run!r} stores no training samples to look at. Pass inputs: --inputs FILE.npz in the shell, run.explore(x, y) "
            f"in Python."
        )
    rows = np.unique(np.linspace(0, count - 1, min(count, _STORED)).round().astype(int))
    x, y = run.samples.take(rows)
    labels = y if isinstance(y, np.ndarray) and y.size == len(rows) else None
    return Inputs(
        x,
        labels,
        code=[f"x, y = run.samples.take({rows.tolist()})"],
        note=(
            f"No inputs were given, so these are {len(rows)} of the {count:,} training samples that the run stores. What a "
            f"model says of its own training samples tells little of what it says of others: pass held-out inputs with "
            f"--inputs FILE.npz, or run.explore(x, y)."
        ),
    )


class Shown:
    """How inputs and training samples look.

    Parameters
    ----------
    run : WeightPath
        A run that no other thread reads: it is read under a lock.
    inputs : Inputs
        The inputs.
    vocabulary : sequence of str, optional
        The text of each token, by its number.
    """

    def __init__(self, run: WeightPath, inputs: Inputs, vocabulary: Sequence[str] | None = None) -> None:
        self.run, self.inputs, self._vocabulary = run, inputs, vocabulary
        self._flat = struct.as_batches(run.manifest.inputs, inputs.x, "inputs")
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of inputs."""
        return len(self._flat[0])

    def read_again(self) -> None:
        """Open the run's files again: one that is being recorded may have samples that it had not before."""
        if isinstance(self.run, RecordedRun):
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # they were shown when it was opened first
                self.run = RecordedRun(self.run.run_dir, trust_graph=self.run._trust_graph)
                self.__dict__.pop("sample_ids", None)

    def input(self, position: int) -> Example:
        """Return what the reader sees of an input."""
        return self._example([array[position] for array in self._flat], None)

    def label(self, position: int) -> str | None:
        """Return the label of an input as text, None without one."""
        y = self.inputs.y
        return None if y is None else _label_text(np.asarray(y)[position])

    @cached_property
    def labels(self) -> list[str | None]:
        """The labels of all inputs."""
        return [self.label(position) for position in range(len(self))]

    def name(self, position: int) -> str:
        """Return the name of an input: its number in the file."""
        return f"input {self.inputs.first_row + position}"

    def sample(self, sample_id: Any) -> Example:
        """Return what the reader sees of a training sample."""
        inputs, targets = self._sample(sample_id)
        return self._example(inputs, targets[0] if len(targets) == 1 else None)

    def words_of_sample(self, sample_id: Any, count: int) -> list[str]:
        """Return a word for each of the losses of a sample: what was to be predicted there."""
        inputs, targets = self._sample(sample_id)
        tokens = next(
            (a for a in (*targets, *inputs) if a.ndim == 1 and a.dtype.kind in "iu"), np.zeros(0, int)
        )
        words = [self._word(int(token)) for token in tokens[:count]]
        return words + [f"position {i}" for i in range(len(words), count)]

    def _sample(self, sample_id: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
        with self._lock:
            row = self.run.samples.row_of_id[sample_id]
            inputs, targets = self.run.samples.take_flat([row])
        return [array[0] for array in inputs], [array[0] for array in targets]

    @cached_property
    def sample_ids(self) -> dict[str, Any]:
        """The ids of the training samples by their text."""
        with self._lock:
            return {str(one): one for one in self.run.samples.ids.tolist()}

    def _word(self, token: int) -> str:
        words = self._vocabulary
        return words[token] if words is not None and 0 <= token < len(words) else str(token)

    def _example(self, arrays: list[np.ndarray], label: np.ndarray | None) -> Example:
        said = None if label is None else _label_text(label)
        title = "" if said is None else f"label {said}"
        if len(arrays) == 1 and arrays[0].ndim == 1 and arrays[0].dtype.kind in "iu":
            words = [self._word(int(token)) for token in arrays[0][:_MOST_TOKENS]]
            words += ["…"] * (arrays[0].size > _MOST_TOKENS)
            return Example(" ".join(words) + (f" · {title}" if title else ""))
        if all(array.dtype.kind in "OSU" for array in arrays):
            return Example(shortened(" ".join(str(array.reshape(-1)[0]) for array in arrays)))
        return example_of(arrays, title)


def shortened(text: str) -> str:
    """Return a text that fits a card. Control characters would change how the rest of the page is read."""
    kept = "".join(one if one.isprintable() else "�" for one in text)
    return kept if len(kept) <= _LONGEST else f"{kept[: _LONGEST - 1]}…"


def _label_text(label: Any) -> str | None:
    """Return a label as text; None if it is not one number or text."""
    value = np.asarray(label)
    if value.size != 1:
        return None
    one = value.reshape(-1)[0]
    return f"{one:g}" if value.dtype.kind in "iufb" else shortened(str(one))
