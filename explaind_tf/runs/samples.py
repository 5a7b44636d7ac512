"""The sample store: it holds each distinct training sample once, identified by a fingerprint of its content."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from explaind_tf.errors import RefusedError, RunFormatError
from explaind_tf.runs.fingerprints import fingerprint
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Leaf, Structure
from explaind_tf.runs.storage.records import RecordFile, RecordSeries
from explaind_tf.runs.storage.tf_example import Buffers, Feature, Integers, encode_example

SampleId = int | str

# Memory for samples that were read once, in order of the rows. The other samples are read each time. Small samples gain
# most: reading them takes long compared with training on them, and many of them fit.
_CACHE_BYTES = 32 * 2**20
# A batch may hold a sample several times, but hardly all samples so often. Smaller batches may.
_MOST_TIMES = 16
_BATCH_BYTES = 2**29


@dataclass(frozen=True)
class Sample:
    """One record of the store."""

    fingerprint: int
    id: SampleId | None
    inputs: list[np.ndarray]
    targets: list[np.ndarray]


def encode_sample(sample: Sample, row: int, run_id: str) -> Buffers:
    """Serialise a sample: tensors as raw bytes, and their shapes. The result refers to the tensors.

    The record also holds its row and run. A sample that was moved, or comes from another run, is detected when it is read.
    """
    arrays = [*sample.inputs, *sample.targets]
    features: dict[str, Feature] = {
        "run": [np.frombuffer(run_id.encode(), np.uint8)],
        "row": Integers([row]),
        "fingerprint": Integers([sample.fingerprint]),
        "shapes": Integers([size for array in arrays for size in array.shape]),
        "tensors": arrays,
    }
    if isinstance(sample.id, str):
        features["id"] = [np.frombuffer(sample.id.encode(), np.uint8)]
    elif sample.id is not None:
        features["id"] = Integers([sample.id])
    return encode_example(features)


class SampleStore:
    """Random access to the training samples of a run.

    Parameters
    ----------
    files : sequence of RecordFile
        The shards in order.
    inputs, targets : Structure
        Structure of one sample, from the manifest.
    run_id : str
        The run's identifier, from the manifest.
    """

    def __init__(
        self, files: Sequence[RecordFile], inputs: Structure, targets: Structure, run_id: str
    ) -> None:
        self.records = RecordSeries(files)
        self._run_id = run_id
        self._inputs = inputs
        self._targets = targets
        self._leaves: list[Leaf] = [*struct.leaves(inputs), *struct.leaves(targets)]
        self._cache: list[np.ndarray] | None = None
        self._is_cached = np.zeros(0, bool)

    def __len__(self) -> int:
        """Return the number of rows: distinct contents, in order of first appearance."""
        return len(self.records)

    def read(self, row: int) -> Sample:
        """Return one sample.

        Parameters
        ----------
        row : int
            Row number of the sample.

        Returns
        -------
        Sample
            Its fingerprint, id, and flat lists of its inputs and targets, without a batch dimension.

        Raises
        ------
        RunFormatError
            If the record is damaged or its content does not match its fingerprint.
        """
        features = self.records.read_example(row).features.feature
        try:
            self._check_place(features, row)
            arrays = self._tensors(features)
            stored = int(features["fingerprint"].int64_list.value[0])
            text, number = features["id"].bytes_list.value, features["id"].int64_list.value
            sample_id: SampleId | None = text[0].decode() if text else int(number[0]) if number else None
        except (IndexError, ValueError) as error:
            raise RunFormatError(
                f"{self.records.where(row)} (sample {row}) is damaged: {error}. Restore the file from a copy."
            ) from error
        if fingerprint(arrays) != stored:
            raise RunFormatError(
                f"{self.records.where(row)} (sample {row}) does not match its fingerprint. Restore the file from a copy."
            )
        split = len(struct.leaves(self._inputs))
        return Sample(stored, sample_id, arrays[:split], arrays[split:])

    def _check_place(self, features: Any, row: int) -> None:
        run_id, rows = list(features["run"].bytes_list.value), list(features["row"].int64_list.value)
        if run_id != [self._run_id.encode()]:
            raise ValueError(f"it belongs to the run {run_id}, not to {self._run_id!r}")
        if rows != [row]:
            raise ValueError(f"it is sample {rows}: records were removed, repeated or reordered")

    def _tensors(self, features: Any) -> list[np.ndarray]:
        blobs = features["tensors"].bytes_list.value
        sizes = list(features["shapes"].int64_list.value)
        if len(blobs) != len(self._leaves) or len(sizes) != sum(len(leaf.shape) for leaf in self._leaves):
            raise ValueError(
                f"it has {len(blobs)} tensors and {len(sizes)} sizes, which do not fit the {len(self._leaves)} tensors of "
                f"the manifest"
            )
        arrays = []
        for leaf, blob in zip(self._leaves, blobs, strict=True):
            shape, sizes = sizes[: len(leaf.shape)], sizes[len(leaf.shape) :]
            dtype = leaf.numpy_dtype
            fits = all(
                found >= 0 and size in (None, found) for size, found in zip(leaf.shape, shape, strict=True)
            )
            if not fits or len(blob) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"it has {len(blob)} bytes of shape {shape}, but the manifest says {leaf}")
            arrays.append(np.frombuffer(blob, dtype).reshape(shape))
        return arrays

    def take_flat(self, rows: Sequence[int] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the stacked inputs and targets of ``rows``.

        Parameters
        ----------
        rows : sequence of int
            Row numbers.

        Returns
        -------
        tuple of list of numpy.ndarray
            Inputs and targets, flat, each array of shape (batch, ...).

        Raises
        ------
        RunFormatError
            If a row is missing or damaged.
        """
        missing = [int(row) for row in rows if not 0 <= row < len(self)]
        if missing:
            raise RunFormatError(
                f"{self.records.files[-1].path} lacks the samples {missing[:5]} that a step names: the run holds "
                f"{len(self)} samples. Restore it from a copy."
            )
        rows = np.asarray(rows, np.int64)
        split = len(struct.leaves(self._inputs))
        if not rows.size:  # the batch of a replica that got none
            empty = [
                np.zeros((0, *(size or 0 for size in leaf.shape)), leaf.numpy_dtype) for leaf in self._leaves
            ]
            return empty[:split], empty[split:]
        self._refuse_too_large(rows)
        if self._cache is None:
            self._make_cache()
        assert self._cache is not None
        for row in np.unique(rows[rows < len(self._is_cached)]):
            if not self._is_cached[row]:
                for array, value in zip(self._cache, self._read_flat(row), strict=True):
                    array[row] = value
                self._is_cached[row] = True
        if (rows < len(self._is_cached)).all():
            stacked = [array[rows] for array in self._cache]
        else:
            samples = [
                self._cached(row) if row < len(self._is_cached) else self._read_flat(row) for row in rows
            ]
            stacked = [np.stack(arrays) for arrays in zip(*samples, strict=True)]
        return stacked[:split], stacked[split:]

    def _refuse_too_large(self, rows: np.ndarray) -> None:
        """Refuse a batch that names samples so often that it is far larger than the files."""
        found, counts = np.unique(rows, return_counts=True)
        if len(found) == len(rows):
            return
        most = max(_BATCH_BYTES, _MOST_TIMES * self.records.size)
        sizes = (self.records.bytes_of(int(row)) for row in found)
        size = sum(int(count) * size for count, size in zip(counts, sizes, strict=True))
        if size > most:
            raise RunFormatError(
                f"{self.records.files[0].path}: a step names {len(rows):,} samples, several of them often. Together they "
                f"have {size:,} bytes, and no batch of these files may have more than {most:,}. Restore it from a copy."
            )

    def _read_flat(self, row: int) -> list[np.ndarray]:
        sample = self.read(int(row))
        return [*sample.inputs, *sample.targets]

    def _cached(self, row: int) -> list[np.ndarray]:
        assert self._cache is not None
        return [array[row] for array in self._cache]

    def _make_cache(self) -> None:
        """Reserve memory for the first rows, if all samples have the same size. Reading them fills it."""
        fixed = all(None not in leaf.shape for leaf in self._leaves)
        dtypes = [leaf.numpy_dtype for leaf in self._leaves]
        shapes = [tuple(size or 0 for size in leaf.shape) for leaf in self._leaves]
        bytes_each = sum(d.itemsize * math.prod(s) for d, s in zip(dtypes, shapes, strict=True))
        count = min(len(self), _CACHE_BYTES // max(1, bytes_each)) if fixed else 0
        self._cache = [np.empty((count, *s), d) for s, d in zip(shapes, dtypes, strict=True)]
        self._is_cached = np.zeros(count, bool)

    def take(self, rows: Sequence[int] | np.ndarray) -> tuple[Any, Any]:
        """Return the inputs and targets of ``rows``, nested as they were in training.

        Parameters
        ----------
        rows : sequence of int
            Row numbers: 0 for the first distinct sample of the run.

        Returns
        -------
        tuple
            ``(inputs, targets)``, each an array (batch, ...) or a nested structure of them.

        Raises
        ------
        IndexError
            If a row does not exist.
        """
        outside = [int(row) for row in rows if not 0 <= row < len(self)]
        if outside:
            raise IndexError(
                f"Rows {outside[:5]} do not exist: the run has {len(self)} samples, counted from 0."
            )
        inputs, targets = self.take_flat(rows)
        return struct.pack(self._inputs, inputs), struct.pack(self._targets, targets)

    @cached_property
    def _labels(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self)
        if count:
            self.read(count - 1)  # it says its row, so a manifest with another number of samples is refused
        if count == 0 or self.read(0).id is None:
            return np.arange(count), np.arange(count)
        # One sample at a time: the store may be larger than memory.
        found: dict[SampleId | None, int] = {}
        positions = np.fromiter(
            (found.setdefault(self.read(row).id, len(found)) for row in range(count)), np.int64, count
        )
        if None in found:
            raise RefusedError(
                f"Sample {np.argmax(positions == found[None])} has no id, and other samples of the run have one, so samples "
                f"cannot be told apart by their ids. Record all fits of a run with ids, or all of them without."
            )
        return np.array(list(found)), positions

    @property
    def ids(self) -> np.ndarray:
        """Labels of the samples, shape (samples,): the user's ids, or numbers in order of first appearance."""
        return self._labels[0].copy()

    @cached_property
    def row_of_id(self) -> dict[SampleId, int]:
        """The row of each sample, by its id. If a sample has several contents, the row of the first one."""
        positions, rows = np.unique(self.id_of_row, return_index=True)
        return dict(zip(self.ids[positions].tolist(), rows.tolist(), strict=True))

    @property
    def id_of_row(self) -> np.ndarray:
        """For each row, the position of its id in :attr:`ids`, shape (rows,).

        Rows that share an id are views (augmentations) of one sample.
        """
        return self._labels[1]
