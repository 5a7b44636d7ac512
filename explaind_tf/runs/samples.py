"""The sample store: each distinct training sample once, identified by a fingerprint of its content."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.runs import structure as struct
from explaind_tf.runs.examples import Buffers, as_buffer, encode_example, int_feature
from explaind_tf.runs.records import RecordFile, RecordSeries
from explaind_tf.runs.structure import Leaf, Structure

SampleId = int | str


def fingerprint(arrays: Sequence[np.ndarray]) -> int:
    """Return the 64-bit fingerprint of one sample: BLAKE2b over dtype, shape and bytes of its tensors.

    Signed, as TFRecord features are. Two different samples among a million share one with a probability
    of 3e-8.
    """
    parts = ((f"{array.dtype.str}{array.shape}".encode(), array.tobytes()) for array in arrays)
    return _fingerprint_of(b"".join(part for pair in parts for part in pair))


class BatchFingerprints:
    """The :func:`fingerprint` of each sample of a batch, in one pass over the batch.

    The fingerprints of small samples (tokens, tables) are remembered by all of their bytes: for them looking up is
    faster than hashing anew in each epoch.
    """

    _LARGEST_REMEMBERED = 256  # bytes of a sample
    _MOST_REMEMBERED = 2**16  # samples: some 30 MB

    def __init__(self) -> None:
        self._known: dict[bytes, int] = {}

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[int]:
        """Return the fingerprints of a batch, given its tensors (batch, ...)."""
        count = len(arrays[0])
        pieces: list[np.ndarray] = []
        for array in arrays:
            head = np.frombuffer(f"{array.dtype.str}{array.shape[1:]}".encode(), np.uint8)
            body = as_buffer(array).reshape(count, array[:1].nbytes)
            pieces += [np.broadcast_to(head, (count, len(head))), body]
        # Row by row all that the digest of a sample is updated with.
        rows = np.concatenate(pieces, axis=1)
        width = rows.shape[1]
        contents = rows.tobytes()
        samples = [contents[start : start + width] for start in range(0, count * width, width)]
        if width > self._LARGEST_REMEMBERED:
            return [_fingerprint_of(sample) for sample in samples]
        found = list(map(self._known.get, samples))
        return [self._remember(samples[i]) if known is None else known for i, known in enumerate(found)]

    def _remember(self, sample: bytes) -> int:
        value = _fingerprint_of(sample)
        if len(self._known) < self._MOST_REMEMBERED:
            self._known[sample] = value
        return value


def _fingerprint_of(content: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


@dataclass(frozen=True)
class Sample:
    """One record of the store."""

    fingerprint: int
    id: SampleId | None
    inputs: list[np.ndarray]
    targets: list[np.ndarray]


def encode_sample(sample: Sample) -> Buffers:
    """Serialise a sample; tensors as raw bytes beside their shapes. The result refers to them."""
    arrays = [*sample.inputs, *sample.targets]
    features: dict[str, tf.train.Feature | list[np.ndarray]] = {
        "fingerprint": int_feature([sample.fingerprint]),
        "shapes": int_feature([size for array in arrays for size in array.shape]),
        "tensors": arrays,
    }
    if isinstance(sample.id, str):
        features["id"] = [np.frombuffer(sample.id.encode(), np.uint8)]
    elif sample.id is not None:
        features["id"] = int_feature([sample.id])
    return encode_example(features)


class SampleStore:
    """Random access to the training samples of a run.

    Parameters
    ----------
    files : sequence of RecordFile
        The shards in order.
    inputs, targets : Structure
        What one sample looks like, from the manifest.
    """

    def __init__(self, files: Sequence[RecordFile], inputs: Structure, targets: Structure) -> None:
        self.records = RecordSeries(files)
        self._inputs = inputs
        self._targets = targets
        self._leaves: list[Leaf] = [*struct.leaves(inputs), *struct.leaves(targets)]

    def __len__(self) -> int:
        """Return the number of rows: distinct contents, in order of first appearance."""
        return len(self.records)

    def read(self, row: int) -> Sample:
        """Return one sample.

        Raises
        ------
        RunFormatError
            If the record is damaged or its content does not match its fingerprint.
        """
        features = self.records.read_example(row).features.feature
        try:
            arrays = self._tensors(features)
            stored = int(features["fingerprint"].int64_list.value[0])
        except (IndexError, ValueError) as error:
            raise RunFormatError(f"{self.records.where(row)} (sample {row}) is damaged: {error}.") from error
        if fingerprint(arrays) != stored:
            raise RunFormatError(f"{self.records.where(row)} (sample {row}) does not match its fingerprint.")
        text, number = features["id"].bytes_list.value, features["id"].int64_list.value
        sample_id: SampleId | None = text[0].decode() if text else int(number[0]) if number else None
        split = len(struct.leaves(self._inputs))
        return Sample(stored, sample_id, arrays[:split], arrays[split:])

    def _tensors(self, features: Any) -> list[np.ndarray]:
        blobs = features["tensors"].bytes_list.value
        sizes = list(features["shapes"].int64_list.value)
        if len(blobs) != len(self._leaves) or len(sizes) != sum(len(leaf.shape) for leaf in self._leaves):
            raise ValueError(f"it has {len(blobs)} tensors, the manifest says {len(self._leaves)}")
        arrays = []
        for leaf, blob in zip(self._leaves, blobs, strict=True):
            shape, sizes = sizes[: len(leaf.shape)], sizes[len(leaf.shape) :]
            dtype = np.dtype(tf.dtypes.as_dtype(leaf.dtype).as_numpy_dtype)
            arrays.append(np.frombuffer(blob, dtype).reshape(shape))
        return arrays

    def take_flat(self, rows: Sequence[int] | np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Return the stacked inputs and targets of ``rows`` as flat lists of arrays (batch, ...)."""
        missing = [int(row) for row in rows if not 0 <= row < len(self)]
        if missing:
            raise RunFormatError(
                f"{self.records.files[-1].path} lacks the samples {missing[:5]} that a step names: it holds {len(self)}. "
                f"Restore it from a copy."
            )
        samples = [self.read(int(row)) for row in rows]
        inputs = [np.stack(arrays) for arrays in zip(*(s.inputs for s in samples), strict=True)]
        targets = [np.stack(arrays) for arrays in zip(*(s.targets for s in samples), strict=True)]
        return inputs, targets

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
            raise IndexError(f"Rows {outside[:5]} do not exist: the run has {len(self)} samples.")
        inputs, targets = self.take_flat(rows)
        return struct.pack(self._inputs, inputs), struct.pack(self._targets, targets)

    @cached_property
    def _labels(self) -> tuple[list[SampleId], np.ndarray]:
        if len(self) == 0 or self.read(0).id is None:
            return list(range(len(self))), np.arange(len(self))
        position: dict[SampleId | None, int] = {}
        # One sample at a time: the store may be larger than memory.
        of_row = [position.setdefault(self.read(row).id, len(position)) for row in range(len(self))]
        return [label for label in position if label is not None], np.array(of_row)

    @property
    def ids(self) -> np.ndarray:
        """The samples' labels: the user's ids, or numbers in order of first appearance."""
        return np.array(self._labels[0])

    @property
    def id_of_row(self) -> np.ndarray:
        """For each row, the position in :attr:`ids` of the id that it belongs to.

        Rows that share an id are views (augmentations) of one sample.
        """
        return self._labels[1]
