"""`CheckpointSeries`: saved checkpoints of one model as a path of weights, with straight lines between them."""

import glob
import hashlib
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from explaind_tf.errors import RefusedError, RunFormatError
from explaind_tf.levels import AXES, PATH
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import Layout, Snapshot
from explaind_tf.runs.graphs.loaded import ForwardGraph
from explaind_tf.runs.samples import SampleStore
from explaind_tf.runs.steps import Transition, ends_first, transition_between
from explaind_tf.runs.weight_path import WeightPath
from explaind_tf.terms import Source

# The two ends of a step. No more are held, since one checkpoint may fill much of the memory.
_HELD = 2

# TensorFlow writes several files per checkpoint. Their common prefix names the checkpoint. Another file lists all of them.
_PARTS = re.compile(r"\.(index|data-\d{5}-of-\d{5})$")
_LIST_OF_CHECKPOINTS = "checkpoint"

ReadCheckpoint = Callable[[Path], list[np.ndarray]]


def find_checkpoints(checkpoints: str | Path | Iterable[str | Path]) -> tuple[Path, ...]:
    """Return the paths of a series in order.

    A list keeps its order. The matches of a pattern are sorted by the numbers in their names. The files of a TensorFlow
    checkpoint are replaced by its prefix.

    Raises
    ------
    ValueError
        If there are fewer than two checkpoints, or one of them twice.
    """
    if isinstance(checkpoints, (str, os.PathLike)):
        matches = {_prefix(match) for match in glob.glob(os.fspath(checkpoints), recursive=True)}
        paths = sorted((p for p in matches if p.name != _LIST_OF_CHECKPOINTS), key=_by_number)
        what = f"{os.fspath(checkpoints)!r} matches {len(paths)} checkpoints"
    else:
        paths = [_prefix(path) for path in checkpoints]
        what = f"The list has {len(paths)} checkpoints"
    if len(paths) < 2:
        found = f": {paths[0]}" if paths else ""
        raise ValueError(
            f"{what}{found}. A path needs two or more, in the order of training: give a list of paths, or a pattern such as "
            f'"checkpoints/*.weights.h5".'
        )
    first: dict[Path, int] = {}
    for position, path in enumerate(paths):
        earlier = first.setdefault(path.resolve(), position)
        if earlier != position:
            raise ValueError(
                f"Checkpoint {position} of the list is checkpoint {earlier} again: {path}. Give each checkpoint once, in "
                f"the order of training."
            )
    return tuple(paths)


def _prefix(path: str | Path) -> Path:
    path = Path(path)
    return path.with_name(_PARTS.sub("", path.name)) if _PARTS.search(path.name) else path


def _by_number(path: Path) -> list[tuple[bool, int, str]]:
    """Return a key that sorts runs of digits as numbers: epoch-2 before epoch-10."""
    parts = re.split(r"(\d+)", str(path))
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts]


class CheckpointStore:
    """Reads checkpoints when they are needed, and holds two at most. Opening reads and checks each one once.

    Parameters
    ----------
    paths : sequence of Path
        Checkpoints in the order of training.
    read : callable
        Returns the values of a checkpoint: those of the layout's variables, then those of its state.
    layout : Layout
        The model's variables.

    Raises
    ------
    RunFormatError
        If a checkpoint cannot be read, does not fit the model's variables, or holds NaN or infinite values.
    """

    def __init__(self, paths: Sequence[Path], read: ReadCheckpoint, layout: Layout) -> None:
        self.layout = layout
        self._paths, self._read = paths, read
        self._held: OrderedDict[int, Snapshot] = OrderedDict()
        self.digests = [self._load(position).digest() for position in range(len(paths))]

    def __len__(self) -> int:
        """Return the number of steps: the number of checkpoints minus one."""
        return len(self._paths) - 1

    def _load(self, position: int) -> Snapshot:
        path, count = self._paths[position], len(self.layout.variables)
        values = self._read(path)
        for spec, value in zip((*self.layout.variables, *self.layout.state), values, strict=True):
            self._check(path, spec, value)
        theta = np.concatenate([value.reshape(-1) for value in values[:count]])
        return Snapshot(theta, values[count:])

    @staticmethod
    def _check(path: Path, spec: VariableSpec, value: np.ndarray) -> None:
        if value.shape != spec.shape:
            raise RunFormatError(
                f"{path}: the variable {spec.path!r} has shape {value.shape} there; in the model it has {spec.shape}. Give "
                f"the model that these checkpoints were saved from."
            )
        if spec.is_floating and not np.isfinite(value.astype(np.float64)).all():
            raise RunFormatError(
                f"{path}: the variable {spec.path!r} holds NaN or infinite values. Leave out this checkpoint, and the later "
                f"ones if training had diverged."
            )

    def _checkpoint(self, position: int) -> Snapshot:
        if position not in self._held:
            while len(self._held) >= _HELD:  # frees memory before the next one is read
                self._held.popitem(last=False)
            found = self._load(position)
            if found.digest() != self.digests[position]:
                raise RunFormatError(
                    f"{self._paths[position]} has changed since the series was opened. Open the series again when nothing "
                    f"writes to this file any more."
                )
            self._held[position] = found
        self._held.move_to_end(position)
        return self._held[position]

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,); ``step == len(self)`` gives the final weights."""
        return self._checkpoint(step).theta

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""
        return self._checkpoint(step).state

    def recorded_states(self) -> Iterator[list[np.ndarray]]:
        """Yield all states: the first one, the last one, then those between."""
        return (self.state(step) for step in ends_first(len(self) + 1))

    def transition(self, step: int) -> Transition:
        """Return what is known about ``step``: the weights and state at its start and its end."""
        start, end = self._checkpoint(step), self._checkpoint(step + 1)
        return transition_between(step, start, end)


class CheckpointSeries(WeightPath):
    """Checkpoints of one model. Users open them with :func:`explaind_tf.open_checkpoints`.

    Parameters
    ----------
    paths : sequence of Path
        Checkpoints in the order of training.
    read : callable
        Returns the values of a checkpoint's variables, in the order of the manifest.
    manifest : Manifest
        The model's variables, inputs and outputs. Its ``run_id`` is replaced by a digest of all weights of the series.
    graph : ForwardGraph
        The model's forward pass.

    Attributes
    ----------
    checkpoints : tuple of Path
        Step s leads from ``checkpoints[s]`` to ``checkpoints[s + 1]``.
    """

    axes = AXES[PATH]
    source: Source = "checkpoints"

    def __init__(
        self, paths: Sequence[Path], read: ReadCheckpoint, manifest: Manifest, graph: ForwardGraph
    ) -> None:
        self.checkpoints = tuple(paths)
        self._graph = graph
        store = CheckpointStore(self.checkpoints, read, Layout(manifest.variables, manifest.state))
        run_id = hashlib.blake2b(b"".join(store.digests), digest_size=16).hexdigest()
        self.manifest, self.step_store = replace(manifest, run_id=run_id), store

    @property
    def graphs(self) -> ForwardGraph:
        """The model's forward pass."""
        return self._graph

    @property
    def samples(self) -> SampleStore:
        """Checkpoints hold no samples.

        Raises
        ------
        RefusedError
            Always.
        """
        raise RefusedError(
            "Checkpoints hold no training samples. To get them, record the training with a PathLogger."
        )

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__}: {len(self.checkpoints)} checkpoints from {str(self.checkpoints[0])!r} to "
            f"{str(self.checkpoints[-1])!r}, {self.step_store.layout.size:,} weights in {len(self.layers)} layers>"
        )
