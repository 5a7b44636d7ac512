"""The steps of a run: records are joined to transitions, in any order."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.decoding import based_on_start, decoded
from explaind_tf.runs.format.step_records import END, REWIND, START, STEP, Layout, Snapshot, StepRecord
from explaind_tf.runs.keyframes import KeyframeReplay
from explaind_tf.runs.storage.records import RecordFile, RecordSeries

# Weights, shape (D,), and the non-trainable variables.
State = tuple[np.ndarray, list[np.ndarray]]

# A reader iterates forwards or backwards and needs the records on either side of a step.
_CACHED_RECORDS = 4


@dataclass(frozen=True)
class Transition:
    """Everything recorded about one step, joined from the records on either side.

    ``loss_scale`` is that of the gradient. A step that ``is_skipped`` used no gradient.
    ``optimizer_start`` and ``optimizer`` are the optimizer's other variables before and after it, as in :class:`Snapshot`.
    ``theta_start`` → (optimizer) → ``theta_stepped`` → (other changes: callbacks, set_weights) → ``theta_end``.
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
    momentum_start: np.ndarray | None = None
    second_moment_start: np.ndarray | None = None
    optimizer_start: list[np.ndarray] = field(default_factory=list)
    optimizer: list[np.ndarray] = field(default_factory=list)
    loss_scale: float = 1.0
    is_skipped: bool = False


def transition_between(step: int, start: Snapshot, end: Snapshot) -> Transition:
    """Return a step of which only the weights and states at its ends are known."""
    return Transition(
        step=step,
        updates=False,
        iteration=-1,
        learning_rate=0.0,
        rows=np.zeros(0, np.int64),
        weights=[],
        theta_start=start.theta,
        theta_stepped=end.theta,
        theta_end=end.theta,
        momentum=None,
        second_moment=None,
        clip_factors=None,
        state_start=start.state,
        state_end=end.state,
    )


def transition_of(record: StepRecord, before: Snapshot, start: State, end: State) -> Transition:
    """Join a record with the states around it.

    Parameters
    ----------
    record : StepRecord
        With its snapshot.
    before : Snapshot
        What the step before it led to.
    start, end : tuple
        Weights and state before the step, and before the next one: other changes included.
    """
    after = record.known
    return Transition(
        step=record.step,
        updates=record.updates,
        iteration=record.iteration,
        learning_rate=record.learning_rate,
        rows=record.rows,
        weights=record.weights,
        theta_start=start[0],
        theta_stepped=after.theta if record.theta_stepped is None else record.theta_stepped,
        theta_end=end[0],
        momentum=after.momentum if record.updates else None,
        second_moment=after.second_moment if record.updates else None,
        clip_factors=record.clip_factors,
        state_start=start[1],
        state_end=end[1],
        momentum_start=before.momentum,
        second_moment_start=before.second_moment,
        optimizer_start=before.optimizer,
        optimizer=after.optimizer,
        is_skipped=record.is_skipped,
    )


def ends_first(count: int) -> list[int]:
    """Return the numbers below a count: the first and the last one, between which most differs, then the others."""
    return list(dict.fromkeys((0, count - 1, *range(1, count - 1))))


class _ReadAhead(threading.Thread):
    """Reads one record while another step is being processed, then ends.

    After that, nothing needs closing, and nothing keeps the run open.
    """

    def __init__(self, read: Callable[[int], StepRecord], position: int) -> None:
        super().__init__(name=f"read-ahead of record {position}")
        self.position = position
        self.record: StepRecord | None = None
        self._read = read

    def run(self) -> None:
        """Read the record. If it is damaged, no error is raised here, but when the record is asked for and read again."""
        with contextlib.suppress(Exception):
            self.record = self._read(self.position)
        # The store holds this thread. A reference back would leave closing the run to the garbage collector.
        del self._read


class StepStore:
    """Reads the steps of a run, in any order, one at a time, from any thread.

    While one step is being processed, a thread reads the next record in the current direction, forwards or backwards.

    Parameters
    ----------
    files : sequence of RecordFile
        The shards in order, one for each fit.
    layout : Layout
        Sizes from the manifest.
    replay : KeyframeReplay, optional
        Recomputes what is not recorded between keyframes.
    """

    def __init__(
        self, files: Sequence[RecordFile], layout: Layout, replay: KeyframeReplay | None = None
    ) -> None:
        self.layout = based_on_start(layout, files)
        self.replay = replay
        self.records = RecordSeries(files)
        self._cache: OrderedDict[int, StepRecord] = OrderedDict()
        self._lock = threading.Lock()  # guards the cache, the last step and the record read ahead
        self._last_step: int | None = None
        self._ahead: _ReadAhead | None = None
        if len(self.records) == 0:
            raise RunFormatError(
                f"{files[0].path} holds no record: the run was cut short before its first step. Record it again."
            )
        self._indices = self._joined()
        self._start: Snapshot | None = None
        self._start = self.start = self._record(0).known
        self._has_end = len(self._indices) > 1 and self._read(len(self._indices) - 1).kind == END

    def _joined(self) -> np.ndarray:
        """Return the records of the path, in order: the start, the steps, and the end if there is one."""
        found = np.zeros(0, np.int64)
        files = self.records.ranges()
        for file in files:
            indices = np.arange(file.start, file.stop)
            # A fit that went on from an earlier step begins with a rewind.
            if file is not files[0] and (opening := self._decode(file[0])).kind == REWIND:
                if not 0 <= opening.step < len(found):
                    raise RunFormatError(
                        f"{self.records.where(file[0])} goes back to step {opening.step}, but there are {len(found) - 1} "
                        f"steps before it. Restore the file from a copy."
                    )
                found, indices = found[: opening.step + 1], indices[1:]
            # A fit that was continued may have an end record. The step after it holds the same data, and more.
            if file is not files[-1] and self._decode(file[-1]).kind == END:
                indices = indices[:-1]
            found = np.concatenate([found, indices])
        return found

    def find(self, theta: np.ndarray, state: list[np.ndarray]) -> int | None:
        """Return the last step before which weights and state had these values, or None.

        The number of steps stands for the end. Counters and seeds may differ: Keras does not restore all of them.
        """
        for step in range(len(self), -1, -1):
            pairs = [(self.theta(step), theta), *zip(self.state(step), state, strict=True)]
            if all(a.dtype.kind != "f" or np.array_equal(a, b) for a, b in pairs):
                return step
        return None

    def __len__(self) -> int:
        """Return the number of whole steps."""
        return len(self._indices) - 1 - int(self._has_end)

    def _decode(self, index: int) -> StepRecord:
        return decoded(self.layout, *self.records.locate(index))

    def _record(self, position: int) -> StepRecord:
        """Return the record of step ``position − 1``, with its snapshot."""
        with self._lock:
            record = self._as_recorded(position)
            if record.is_unchanged and record.snapshot is None:
                return self._keep(position, self._unchanged(position))
            if record.snapshot is None:
                record = self._keep(position, self._filled(position))
            return record

    def _unchanged(self, position: int) -> StepRecord:
        """Return the record of a step that left everything as it was, with the state before it."""
        left = [self._as_recorded(position)]
        while left[-1].is_unchanged and left[-1].snapshot is None:  # the first record of a run is none
            left.append(self._as_recorded(position - len(left)))
        before = left.pop()
        if before.snapshot is None:
            before = self._filled(position - len(left))
        state = before.known
        for record in reversed(left):
            state = replace(
                state,
                theta=state.theta if record.theta_before is None else record.theta_before,
                state=state.state if record.state_before is None else record.state_before,
            )
        return replace(left[0], snapshot=state)

    def _as_recorded(self, position: int) -> StepRecord:
        """Return a record that may lack its snapshot. The caller must hold the lock."""
        if position in self._cache:
            self._cache.move_to_end(position)
            return self._cache[position]
        return self._keep(position, self._take_ahead(position) or self._read(position))

    def _keep(self, position: int, record: StepRecord) -> StepRecord:
        self._cache[position] = record
        self._cache.move_to_end(position)
        while len(self._cache) > _CACHED_RECORDS:
            self._cache.popitem(last=False)
        return record

    def _filled(self, position: int) -> StepRecord:
        if self.replay is None:
            where = self.records.where(int(self._indices[position]))
            raise RunFormatError(
                f"{where} (step {position - 1}) lacks the weights, and the run has no "
                f"training step that could compute them. A PathLogger stores one or the other: restore the run from a copy."
            )
        record = self.replay.fill(position, len(self._indices), self._read)
        if position == len(self) and self._has_end:
            end = self._as_recorded(position + 1)
            if end.theta_before is None and end.state_before is None:
                if end.known.digest() != record.digest:
                    raise RunFormatError(
                        f"{self.records.where(self._indices[-1])} holds other weights than the last step led to: nothing "
                        f"changed them after it. Restore the file from a copy."
                    )
                # Nothing changed after the last step, so the recorded snapshot is used: training again may have drifted.
                return replace(record, snapshot=end.snapshot)
        return record

    def _take_ahead(self, position: int) -> StepRecord | None:
        """Return the record that was read ahead, if it is the wanted one and was read without an error."""
        ahead = self._ahead
        if ahead is None or ahead.position != position:
            return None
        ahead.join()
        self._ahead = None
        return ahead.record

    def _read_ahead(self, step: int) -> None:
        """Start to read what the next step in the current direction will need, if there is a direction."""
        with self._lock:
            last, self._last_step = self._last_step, step
            if last is None or abs(step - last) != 1:  # jumps and repeated steps show no direction
                return
            # A transition needs its own record, at position step + 1, and the ones on either side.
            position = step + 3 if step > last else step - 1
            is_busy = self._ahead is not None and (
                self._ahead.position == position or self._ahead.is_alive()  # one thread at a time
            )
            if is_busy or position in self._cache or not 0 <= position < len(self._indices):
                return
            ahead = _ReadAhead(self._read, position)
            # If no thread can be started, records are read when they are asked for.
            with contextlib.suppress(RuntimeError):
                ahead.start()
                self._ahead = ahead

    def _read(self, position: int) -> StepRecord:
        """Read and check a record. Uses no state that threads share."""
        index = int(self._indices[position])
        record, where = self._decode(index), self.records.where(index)
        last = position == len(self._indices) - 1
        allowed = (START,) if position == 0 else (STEP, END) if last else (STEP,)
        if record.kind not in allowed or record.step != position - 1:
            raise RunFormatError(
                f"{where} should be step {position - 1}; found {record.kind!r} {record.step}. Steps must follow "
                f"each other without a gap: records were removed, repeated or reordered. Restore the file from a copy."
            )
        if record.snapshot is None and record.kind == START:
            raise RunFormatError(
                f"{where} lacks the weights from before training. Restore the file from a copy."
            )
        if self._start is not None and record.snapshot is not None:
            for name in ("momentum", "second_moment"):
                if (getattr(record.snapshot, name) is None) != (getattr(self._start, name) is None):
                    raise RunFormatError(
                        f"{where} (step {record.step}) and the record from before training differ in whether there is a "
                        f"{name.replace('_', ' ')}. An optimizer has one in each step or in none: restore the file from a "
                        f"copy."
                    )
        if record.kind == START and record.snapshot is not None:
            # The arrays to which later records refer, so that what rests is known to.
            return replace(record, snapshot=replace(record.snapshot, state=list(self.layout.start)))
        return record

    def step(self, number: int) -> StepRecord:
        """Return the record of a step, with its snapshot."""
        return self._record(number + 1)

    def rows(self, step: int) -> np.ndarray:
        """Return the sample rows of a step's batch. This trains nothing again."""
        return self.recorded(step).rows

    def recorded(self, step: int) -> StepRecord:
        """Return the record of a step as it is on the disk: between keyframes without its snapshot."""
        with self._lock:
            return self._as_recorded(step + 1)

    @property
    def closing(self) -> StepRecord | None:
        """The record of what happened after the last step; None if there is none."""
        return self.recorded(len(self)) if self._has_end else None

    @property
    def sample_count(self) -> int:
        """Number of samples that the run had when its last record was written."""
        return self.recorded(len(self._indices) - 2).sample_count

    def last(self) -> Snapshot:
        """Return the snapshot after the last step."""
        return self._record(len(self)).known

    def final(self) -> Snapshot:
        """Return the snapshot at the end of training: after the last step and any later change of weights or state."""
        return self._record(len(self._indices) - 1).known

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,); ``step == len(self)`` gives the final weights."""
        return self.before(step)[0]

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""
        return self.before(step)[1]

    def recorded_states(self) -> Iterator[list[np.ndarray]]:
        """Yield all stored states: the first one, the last one, then those between. Nothing is trained again."""
        for position in ends_first(len(self._indices)):
            record = self._read(position)
            if record.snapshot is not None:
                yield record.snapshot.state
            if record.state_before is not None:
                yield record.state_before

    def before(self, step: int) -> State:
        """Return both."""
        if step == len(self) and self._has_end:
            end = self._record(step + 1).known
            return end.theta, end.state
        previous = self._record(step).known
        theta, state = previous.theta, previous.state
        if step + 1 < len(self._indices):
            with self._lock:
                following = self._as_recorded(step + 1)
            theta = theta if following.theta_before is None else following.theta_before
            state = state if following.state_before is None else following.state_before
        return theta, state

    def transition(self, step: int) -> Transition:
        """Return everything recorded about ``step``."""
        record, start, end = self._record(step + 1), self.before(step), self.before(step + 1)
        self._read_ahead(step)
        before, place = self._record(step).known, self.layout.loss_scale_place
        found = transition_of(record, before, start, end)
        return found if place is None else replace(found, loss_scale=float(before.optimizer[place]))
