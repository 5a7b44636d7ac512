"""Step records: one ``tf.train.Example`` for each training step, with the state that it led to."""

import contextlib
import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.examples import Buffers, Feature, Integers, encode_example
from explaind_tf.runs.records import RecordFile, RecordSeries
from explaind_tf.runs.schema import VariableSpec
from explaind_tf.runs.structure import Leaf

START = "start"
STEP = "step"
END = "end"

# A reader walks forwards or backwards and needs the records on either side of a step.
_CACHED_RECORDS = 4


@dataclass(frozen=True)
class StepRecord:
    """What one record holds. Vectors are flat, of shape (D,), in the order of the manifest's variables.

    Attributes
    ----------
    kind : str
        ``"start"`` (the state before training, step −1), ``"step"``, or ``"end"`` (what others changed after
        the last step).
    step : int
        Number of the step, from 0.
    theta, state
        Weights and non-trainable variables after the step.
    rows, weights
        The sample rows of the batch in order, and their sample weights (flat, empty if there were none).
    updates
        Whether the optimizer updated the weights, or only accumulated the gradient.
    iteration, learning_rate, momentum, second_moment, clip_factors
        Of an update: how many went before it, the learning rate used, the m and v that it left (if the optimizer has
        them), and the factors by which the gradient of each variable was clipped (if it was clipped by norm). The
        start record holds the m from before training.
    theta_stepped
        Weights after the update where something else (a constraint, a moving average) changed them within the step.
    accumulated
        The sum of gradients that waited for an update before training; only in the start record, and None where there
        was none.
    theta_before, state_before
        Weights and state before the step where something other than the optimizer changed them since the
        record before; None where nothing did.
    """

    kind: str
    step: int
    theta: np.ndarray
    state: list[np.ndarray]
    updates: bool = False
    iteration: int = -1
    learning_rate: float = 0.0
    rows: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    weights: list[np.ndarray] = field(default_factory=list)
    second_moment: np.ndarray | None = None
    clip_factors: np.ndarray | None = None
    theta_stepped: np.ndarray | None = None
    momentum: np.ndarray | None = None
    accumulated: np.ndarray | None = None
    theta_before: np.ndarray | None = None
    state_before: list[np.ndarray] | None = None


def encode_step(record: StepRecord, run_id: str) -> Buffers:
    """Serialise a record; arrays as raw little-endian bytes, so that every bit survives. The result refers to them.

    The run's identifier goes into each record: a file of another run, of the same sizes, is told by any of its records.
    """
    features: dict[str, Feature] = {
        "run": [np.frombuffer(run_id.encode(), np.uint8)],
        "kind": [np.frombuffer(record.kind.encode(), np.uint8)],
        "step": Integers([record.step]),
        "updates": Integers([int(record.updates)]),
        "iteration": Integers([record.iteration]),
        "learning_rate": [np.array([record.learning_rate], np.float64)],
        "rows": Integers(record.rows),
        "theta": [record.theta],
        "state": record.state,
    }
    optional = {
        "second_moment": record.second_moment,
        "clip_factors": record.clip_factors,
        "theta_stepped": record.theta_stepped,
        "momentum": record.momentum,
        "accumulated": record.accumulated,
        "theta_before": record.theta_before,
    }
    features |= {name: [array] for name, array in optional.items() if array is not None}
    if record.weights:
        features["weights"] = record.weights
        # Sequences may be padded to another length in each batch.
        features["weight_shapes"] = Integers([size for array in record.weights for size in array.shape])
    if record.state_before is not None:
        features["state_before"] = record.state_before
    return encode_example(features)


@dataclass(frozen=True)
class Layout:
    """Sizes and dtypes that the manifest promises for the vectors of a record."""

    variables: tuple[VariableSpec, ...]
    state: tuple[VariableSpec, ...]
    weights: tuple[Leaf, ...] = ()
    has_second_moment: bool = True
    run_id: str = ""

    @property
    def size(self) -> int:
        """Number of trainable weights D."""
        return sum(variable.size for variable in self.variables)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of θ, the same for all trainable variables."""
        return np.dtype(self.variables[0].dtype)

    def decode(self, example: tf.train.Example) -> StepRecord:
        """Read a record.

        Raises
        ------
        RunFormatError
            If a field is missing or has not the promised size.
        """
        features = example.features.feature
        run_id = self._blobs(features, "run", 1)[0]
        if run_id != self.run_id.encode():
            raise RunFormatError(f"it belongs to the run {run_id!r}, not to {self.run_id!r}")
        kind = self._blobs(features, "kind", 1)[0].decode(errors="replace")
        if kind not in (START, STEP, END):
            raise RunFormatError(f"unknown kind of record {kind!r}")
        rows = np.array(features["rows"].int64_list.value, np.int64)
        return StepRecord(
            kind=kind,
            step=self._int(features, "step"),
            theta=self._vector(features, "theta", self.size),
            state=self._state(features, "state"),
            updates=bool(self._int(features, "updates")),
            iteration=self._int(features, "iteration"),
            learning_rate=float(self._vector(features, "learning_rate", 1, np.dtype(np.float64))[0]),
            rows=rows,
            weights=self._weights(features, len(rows)) if kind == STEP else [],
            second_moment=self._optional(features, "second_moment"),
            clip_factors=(
                self._vector(features, "clip_factors", len(self.variables), np.dtype(np.float64))
                if "clip_factors" in features
                else None
            ),
            theta_stepped=self._optional(features, "theta_stepped"),
            momentum=self._optional(features, "momentum"),
            accumulated=self._optional(features, "accumulated"),
            theta_before=self._optional(features, "theta_before"),
            state_before=self._state(features, "state_before") if "state_before" in features else None,
        )

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
                raise RunFormatError(f"field 'weights' holds {len(blob)} bytes for {shape} of {leaf}")
            arrays.append(np.frombuffer(blob, dtype).reshape(shape))
        return arrays

    def _state(self, features, name: str) -> list[np.ndarray]:
        blobs = self._blobs(features, name, len(self.state))
        arrays = []
        for spec, blob in zip(self.state, blobs, strict=True):
            dtype = np.dtype(spec.dtype)
            if len(blob) != spec.size * dtype.itemsize:
                raise RunFormatError(f"field {name!r} does not fit the state variable {spec.path!r}")
            arrays.append(np.frombuffer(blob, dtype).reshape(spec.shape))
        return arrays


@dataclass(frozen=True)
class Transition:
    """Everything recorded about one step, joined from the records on either side.

    ``theta_start`` → (optimizer) → ``theta_stepped`` → (others: callbacks, set_weights) → ``theta_end``.
    """

    step: int
    updates: bool
    iteration: int
    learning_rate: float
    rows: np.ndarray
    weights: list[np.ndarray]
    theta_start: np.ndarray
    theta_stepped: np.ndarray
    theta_end: np.ndarray
    momentum: np.ndarray | None
    second_moment: np.ndarray | None
    clip_factors: np.ndarray | None
    state_start: list[np.ndarray]
    state_end: list[np.ndarray]


class _ReadAhead(threading.Thread):
    """Reads one record while another step is worked on, and ends: nothing is left to close or to keep a run open."""

    def __init__(self, read: Callable[[int], StepRecord], position: int) -> None:
        super().__init__(name=f"read-ahead of record {position}")
        self.position = position
        self.record: StepRecord | None = None
        self._read = read

    def run(self) -> None:
        """Read the record, unless it is damaged: whoever asks for it will read it again, and get the error."""
        with contextlib.suppress(Exception):
            self.record = self._read(self.position)
        # The store holds its reader. Held by it in turn, a run would be closed by the garbage collector only.
        del self._read


class StepStore:
    """Reads the steps of a run, in any order, one at a time, from any thread.

    While a step is worked on, a thread reads the next record in the direction of travel, forwards or backwards.

    Parameters
    ----------
    files : sequence of RecordFile
        The shards in order, one for each fit.
    layout : Layout
        Sizes from the manifest.
    """

    def __init__(self, files: Sequence[RecordFile], layout: Layout) -> None:
        self.layout = layout
        self.records = RecordSeries(files)
        self._cache: OrderedDict[int, StepRecord] = OrderedDict()
        self._lock = threading.Lock()  # of the cache, the last step and the record read ahead
        self._last_step: int | None = None
        self._ahead: _ReadAhead | None = None
        if len(self.records) == 0:
            raise RunFormatError(
                f"{files[0].path} holds no record: the run was cut short before its first step."
            )
        # A fit that was continued may have closed with an end record; the step after it says the same, and more.
        closings = self.records.last_of_files()[:-1]
        ends = {index for index in closings if self._decode(index).kind == END}
        self._indices = [index for index in range(len(self.records)) if index not in ends]
        self.start = self._record(0)
        self._has_end = len(self._indices) > 1 and self._record(len(self._indices) - 1).kind == END

    def __len__(self) -> int:
        """Return the number of whole steps."""
        return len(self._indices) - 1 - int(self._has_end)

    def _decode(self, index: int) -> StepRecord:
        example = self.records.read_example(index)
        try:
            return self.layout.decode(example)
        except RunFormatError as error:
            raise RunFormatError(f"{self.records.where(index)} is damaged: {error}.") from error

    def _record(self, position: int) -> StepRecord:
        """Return the record of step ``position − 1``."""
        with self._lock:
            if position not in self._cache:
                self._cache[position] = self._take_ahead(position) or self._read(position)
            self._cache.move_to_end(position)
            while len(self._cache) > _CACHED_RECORDS:
                self._cache.popitem(last=False)
            return self._cache[position]

    def _take_ahead(self, position: int) -> StepRecord | None:
        """Return the record that was read ahead, if it is this one and was read without an error."""
        ahead = self._ahead
        if ahead is None or ahead.position != position:
            return None
        ahead.join()
        self._ahead = None
        return ahead.record

    def _read_ahead(self, step: int) -> None:
        """Begin to read what the step after ``step`` will need, if it follows from the step before."""
        with self._lock:
            last, self._last_step = self._last_step, step
            if last is None or abs(step - last) != 1:  # jumps tell nothing; a step may be asked for twice
                return
            # A transition takes the records on either side of its own, which is that of position step + 1.
            position = step + 3 if step > last else step - 1
            is_busy = self._ahead is not None and (
                self._ahead.position == position or self._ahead.is_alive()  # one thread at a time
            )
            if is_busy or position in self._cache or not 0 <= position < len(self._indices):
                return
            ahead = _ReadAhead(self._read, position)
            # Where no thread can be had, records are read when they are asked for.
            with contextlib.suppress(RuntimeError):
                ahead.start()
                self._ahead = ahead

    def _read(self, position: int) -> StepRecord:
        """Read and check a record; touches nothing that threads share."""
        index = self._indices[position]
        record, where = self._decode(index), self.records.where(index)
        last = position == len(self._indices) - 1
        allowed = (START,) if position == 0 else (STEP, END) if last else (STEP,)
        if record.kind not in allowed or record.step != position - 1:
            raise RunFormatError(
                f"{where} should be step {position - 1}; found {record.kind!r} {record.step}. Steps must follow "
                f"each other without a gap: records were removed, repeated or reordered."
            )
        if record.updates and self.layout.has_second_moment and record.second_moment is None:
            raise RunFormatError(f"{where} (step {position - 1}) lacks the optimizer's second moment.")
        return record

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,); ``step == len(self)`` gives the final weights."""
        return self._before(step)[0]

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""
        return self._before(step)[1]

    def _before(self, step: int) -> tuple[np.ndarray, list[np.ndarray]]:
        previous = self._record(step)
        theta, state = previous.theta, previous.state
        if step + 1 < len(self._indices):
            following = self._record(step + 1)
            theta = theta if following.theta_before is None else following.theta_before
            state = state if following.state_before is None else following.state_before
        return theta, state

    def transition(self, step: int) -> Transition:
        """Return everything recorded about ``step``."""
        record = self._record(step + 1)
        theta_start, state_start = self._before(step)
        theta_end, state_end = self._before(step + 1)
        self._read_ahead(step)
        return Transition(
            step=step,
            updates=record.updates,
            iteration=record.iteration,
            learning_rate=record.learning_rate,
            rows=record.rows,
            weights=record.weights,
            theta_start=theta_start,
            theta_stepped=record.theta if record.theta_stepped is None else record.theta_stepped,
            theta_end=theta_end,
            momentum=record.momentum,
            second_moment=record.second_moment,
            clip_factors=record.clip_factors,
            state_start=state_start,
            state_end=state_end,
        )
