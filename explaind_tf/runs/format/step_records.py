"""Step records: one ``tf.train.Example`` per training step, with the state after the step or a digest of it."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.structure import Leaf
from explaind_tf.runs.storage.tf_example import Buffers, Feature, Integers, as_buffer, encode_example

START = "start"
STEP = "step"
END = "end"
REWIND = "rewind"

# How the path of the variable ends that holds the loss scale of keras.optimizers.LossScaleOptimizer.
LOSS_SCALE = "dynamic_scale"

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Snapshot:
    """The whole state between two training steps. Vectors are flat, shape (D,), in the order of the manifest's variables.

    Attributes
    ----------
    theta, state
        Weights and non-trainable variables.
    momentum, second_moment
        The optimizer's m and v, None if it has none.
    accumulated
        The sum of gradients that wait for an update, None if none wait.
    optimizer
        The optimizer's other variables: those that its law reads, then counters, the learning rate, moving averages.
    """

    theta: np.ndarray
    state: list[np.ndarray]
    momentum: np.ndarray | None = None
    second_moment: np.ndarray | None = None
    accumulated: np.ndarray | None = None
    optimizer: list[np.ndarray] = field(default_factory=list)

    def digest(self) -> bytes:
        """Return a digest of every bit of the model's variables.

        The optimizer's variables are left out: a difference in them shows in the model's variables one step later.
        """
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        for array in (self.theta, *self.state):
            digest.update(as_buffer(array).data)
        return digest.digest()


@dataclass(frozen=True)
class StepRecord:
    """The content of one record.

    Attributes
    ----------
    kind : str
        ``"start"`` (before training, step −1), ``"step"``, ``"end"`` (after the last step and any change that followed), or
        ``"rewind"`` (training went on from an earlier step; the steps from there on are not part of the run).
    step : int
        Number of the step, from 0. For a rewind, the number of steps before it that are kept.
    snapshot : Snapshot or None
        The state after the step; None between keyframes.
    digest : bytes or None
        Digest of the snapshot, if the record does not hold it.
    rows, weights
        The sample rows of the batch in order, and their sample weights (flat, empty if there were none).
    sample_count
        Number of samples stored when the record was written. It only grows. After a power cut it shows from which record on
        samples are missing.
    updates
        Whether the optimizer updated the weights, or only accumulated the gradient.
    iteration, learning_rate, clip_factors
        For an update: the number of earlier updates, the learning rate used, and the factors by which the gradient of each
        variable was clipped (if it was clipped by norm).
    theta_stepped
        Weights after the update, if something else (a constraint, a moving average) changed them within the step.
        It is not recorded between keyframes.
    theta_before, state_before
        Weights and state before the step, if something other than the optimizer changed them since the
        previous record; None if nothing did.
    is_skipped
        Whether the optimizer left the batch out, as a loss scale does when a gradient is not finite.
    is_unchanged
        Whether the state after the step is the one before it, so that the record on the disk holds neither a snapshot nor a
        digest. Of replicas that train together, the batches of all but the last one are such steps.
    """

    kind: str
    step: int
    snapshot: Snapshot | None
    digest: bytes | None = None
    updates: bool = False
    iteration: int = -1
    learning_rate: float = 0.0
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    weights: list[np.ndarray] = field(default_factory=list)
    sample_count: int = 0
    clip_factors: np.ndarray | None = None
    theta_stepped: np.ndarray | None = None
    theta_before: np.ndarray | None = None
    state_before: list[np.ndarray] | None = None
    is_skipped: bool = False
    is_unchanged: bool = False

    def without_snapshot(self) -> "StepRecord":
        """Return the record as it is written between keyframes, or for a step that changed nothing."""
        if self.is_unchanged:
            return replace(self, snapshot=None)
        return replace(self, snapshot=None, digest=self.known.digest(), theta_stepped=None)

    @property
    def known(self) -> Snapshot:
        """The snapshot of a record that has one."""
        assert self.snapshot is not None, "a record between keyframes was not filled in"
        return self.snapshot


def encode_step(record: StepRecord, run_id: str, start: Sequence[np.ndarray] = ()) -> Buffers:
    """Serialise a record. Arrays become raw little-endian bytes, so every bit survives. The result refers to the arrays.

    Each record holds the run's identifier. Any record thus reveals a file of another run, even one of the same size.

    Parameters
    ----------
    record : StepRecord
        The record.
    run_id : str
        The identifier of its run.
    start : sequence of np.ndarray
        The state at the start, if an earlier record of the run holds it. Of variables that have the values from there, such
        as frozen weights, the record holds no bytes.
    """
    features: dict[str, Feature] = {
        "run": [np.frombuffer(run_id.encode(), np.uint8)],
        "kind": [np.frombuffer(record.kind.encode(), np.uint8)],
        "step": Integers([record.step]),
        "updates": Integers([int(record.updates)]),
        "iteration": Integers([record.iteration]),
        "learning_rate": [np.array([record.learning_rate], np.float64)],
        "rows": Integers(record.rows),
        "sample_count": Integers([record.sample_count]),
    }
    optional = {
        "clip_factors": record.clip_factors,
        "theta_stepped": record.theta_stepped,
        "theta_before": record.theta_before,
    }
    snapshot = record.snapshot
    if snapshot is None and record.is_unchanged:
        features["is_unchanged"] = Integers([1])
    elif snapshot is None:
        assert record.digest is not None, "a record holds a snapshot or the digest of one"
        features["digest"] = [np.frombuffer(record.digest, np.uint8)]
    else:
        features |= {
            "theta": [snapshot.theta],
            "state": _moved(snapshot.state, start),
            "optimizer": snapshot.optimizer,
        }
        optional |= {
            "momentum": snapshot.momentum,
            "second_moment": snapshot.second_moment,
            "accumulated": snapshot.accumulated,
        }
    features |= {name: [array] for name, array in optional.items() if array is not None}
    if record.weights:
        features["weights"] = record.weights
        # Sequences may be padded to another length in each batch.
        features["weight_shapes"] = Integers([size for array in record.weights for size in array.shape])
    if record.state_before is not None:
        features["state_before"] = _moved(record.state_before, start)
    if record.is_skipped:
        features["is_skipped"] = Integers([1])
    return encode_example(features)


def _moved(state: Sequence[np.ndarray], start: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the state with empty arrays for those that have the values from the start, bit for bit."""
    return [
        np.zeros(0, array.dtype) if k < len(start) and _same_bits(array, start[k]) else array
        for k, array in enumerate(state)
    ]


def _same_bits(array: np.ndarray, other: np.ndarray) -> bool:
    return array is other or np.array_equal(as_buffer(array), as_buffer(other))


@dataclass(frozen=True)
class Layout:
    """Sizes and dtypes of a record's vectors, as the manifest states them, and the state that records refer to."""

    variables: tuple[VariableSpec, ...]
    state: tuple[VariableSpec, ...]
    weights: tuple[Leaf, ...] = ()
    optimizer: tuple[VariableSpec, ...] = ()
    has_second_moment: bool = True
    run_id: str = ""
    start: tuple[np.ndarray, ...] = field(default=(), compare=False)

    @cached_property
    def loss_scale_place(self) -> int | None:
        """Place of the loss scale among the optimizer's other variables; None if the loss is not scaled."""
        places = [i for i, spec in enumerate(self.optimizer) if spec.path.endswith(LOSS_SCALE)]
        return places[0] if places else None

    @property
    def size(self) -> int:
        """Number of trainable weights D."""
        return sum(variable.size for variable in self.variables)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of θ, the same for all trainable variables."""
        return np.dtype(self.variables[0].dtype)

    def decode(self, example: Any) -> StepRecord:
        """Read a record.

        Raises
        ------
        RunFormatError
            If a field is missing or does not have the size that the manifest states.
        """
        features = example.features.feature
        run_id = self._blobs(features, "run", 1)[0]
        if run_id != self.run_id.encode():
            raise RunFormatError(f"it belongs to the run {run_id!r}, not to {self.run_id!r}")
        kind = self._blobs(features, "kind", 1)[0].decode(errors="replace")
        if kind not in (START, STEP, END, REWIND):
            raise RunFormatError(f"the kind of record {kind!r} is unknown")
        rows = np.array(features["rows"].int64_list.value, np.int64)
        return StepRecord(
            kind=kind,
            step=self._int(features, "step"),
            snapshot=self._snapshot(features) if "theta" in features else None,
            digest=None if "theta" in features or "is_unchanged" in features else self._digest(features),
            updates=bool(self._int(features, "updates")),
            iteration=self._int(features, "iteration"),
            learning_rate=float(self._vector(features, "learning_rate", 1, np.dtype(np.float64))[0]),
            rows=rows,
            weights=self._weights(features, len(rows)) if kind == STEP else [],
            sample_count=self._int(features, "sample_count"),
            clip_factors=(
                self._vector(features, "clip_factors", len(self.variables), np.dtype(np.float64))
                if "clip_factors" in features
                else None
            ),
            theta_stepped=self._optional(features, "theta_stepped"),
            theta_before=self._optional(features, "theta_before"),
            is_skipped="is_skipped" in features and bool(self._int(features, "is_skipped")),
            is_unchanged="theta" not in features and "is_unchanged" in features,
            state_before=(
                self._arrays(features, "state_before", self.state, self.start)
                if "state_before" in features
                else None
            ),
        )

    def _snapshot(self, features) -> Snapshot:
        theta = self._vector(features, "theta", self.size)
        second_moment = self._optional(features, "second_moment")
        if self.has_second_moment and second_moment is None:
            raise RunFormatError("the optimizer's second moment is missing")
        return Snapshot(
            theta=theta,
            state=self._arrays(features, "state", self.state, self.start),
            momentum=self._optional(features, "momentum"),
            second_moment=second_moment,
            accumulated=self._optional(features, "accumulated"),
            optimizer=self._arrays(features, "optimizer", self.optimizer),
        )

    def _digest(self, features) -> bytes:
        (blob,) = self._blobs(features, "digest", 1)
        if len(blob) != _DIGEST_BYTES:
            raise RunFormatError(f"field 'digest' holds {len(blob)} bytes instead of {_DIGEST_BYTES}")
        return blob

    @staticmethod
    def _int(features, name: str) -> int:
        values = features[name].int64_list.value
        if len(values) != 1:
            raise RunFormatError(f"field {name!r} holds {len(values)} integers instead of one")
        return int(values[0])

    @staticmethod
    def _blobs(features, name: str, count: int) -> list[bytes]:
        values = features[name].bytes_list.value
        if len(values) != count:
            raise RunFormatError(f"field {name!r} holds {len(values)} arrays instead of {count}")
        return list(values)

    def _vector(self, features, name: str, size: int, dtype: np.dtype | None = None) -> np.ndarray:
        dtype = self.dtype if dtype is None else dtype
        (blob,) = self._blobs(features, name, 1)
        if len(blob) != size * dtype.itemsize:
            raise RunFormatError(
                f"field {name!r} holds {len(blob)} bytes instead of {size} × {dtype.itemsize} ({dtype})"
            )
        return np.frombuffer(blob, dtype)

    def _optional(self, features, name: str) -> np.ndarray | None:
        return self._vector(features, name, self.size) if name in features else None

    def _weights(self, features, batch: int) -> list[np.ndarray]:
        blobs = self._blobs(features, "weights", len(self.weights))
        sizes = list(features["weight_shapes"].int64_list.value)
        arrays = []
        for leaf, blob in zip(self.weights, blobs, strict=True):
            rank = 1 + len(leaf.shape)
            shape, sizes = tuple(sizes[:rank]), sizes[rank:]
            dtype = np.dtype(leaf.dtype)
            if (
                shape[:1] != (batch,)
                or len(shape) != rank
                or min(shape) < 0
                or len(blob) != math.prod(shape) * dtype.itemsize
            ):
                raise RunFormatError(
                    f"field 'weights' holds {len(blob)} bytes of shape {shape}, which do not fit {leaf} and a "
                    f"batch of {batch}"
                )
            arrays.append(np.frombuffer(blob, dtype).reshape(shape))
        return arrays

    def _arrays(
        self, features, name: str, specs: tuple[VariableSpec, ...], start: tuple[np.ndarray, ...] = ()
    ) -> list[np.ndarray]:
        blobs = self._blobs(features, name, len(specs))
        arrays: list[np.ndarray] = []
        for k, (spec, blob) in enumerate(zip(specs, blobs, strict=True)):
            if not blob and start:
                arrays.append(start[k])
                continue
            dtype = np.dtype(spec.dtype)
            if len(blob) != spec.size * dtype.itemsize:
                raise RunFormatError(
                    f"field {name!r} holds {len(blob)} bytes for the variable {spec.path!r} instead of {spec.size} × "
                    f"{dtype.itemsize} ({dtype})"
                )
            arrays.append(np.frombuffer(blob, dtype).reshape(spec.shape))
        return arrays
