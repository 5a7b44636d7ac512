"""Where a resumed recording goes on: at the end of the run, or at an earlier step that a callback restored.

`BackupAndRestore`, or a checkpoint that the user loaded, sets model and optimizer to an earlier state. Training goes on from
there, so the recording does, too.
"""

import warnings

import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.recording.observing.weight_observer import WeightObserver
from explaind_tf.recording.session_state import Position
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.step_records import REWIND, Snapshot, StepRecord
from explaind_tf.runs.storage.files import AnyPath


def opened_to_resume(run_dir: AnyPath) -> RecordedRun:
    """Open a run that is being resumed. Where it was cut short or diverged is no reason to warn then."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RecordedRun(run_dir)


def resume_at(run: RecordedRun, observer: WeightObserver) -> Position:
    """Return where the recording goes on. A model in the state of none of the run's steps is set to its end."""
    step = _restored_step(run, observer)
    if step is None:
        observer.variables.restore(run.step_store.final())
        step = len(run.step_store)
    return _position(run, observer, step)


def resume_again(run: RecordedRun, observer: WeightObserver) -> Position:
    """Return where the recording goes on after a callback set the optimizer to another state.

    Raises
    ------
    RefusedError
        If that state is not of the run.
    """
    step = _restored_step(run, observer)
    if step is None:
        raise RefusedError(
            f"After {run.run_dir} was resumed, something set the optimizer to a state that is of no step of the run. "
            f"Restore both weights and optimizer as they were after one of its steps, or record into another directory."
        )
    return _position(run, observer, step)


def rewind_to(at: Position, sample_count: int) -> StepRecord:
    """Return the record that takes a run back to a position."""
    return StepRecord(REWIND, at.steps, None, digest=at.last.digest(), sample_count=sample_count)


def _position(run: RecordedRun, observer: WeightObserver, step: int) -> Position:
    return Position(step, observer.iteration(), _after(run, step - 1))


def _restored_step(run: RecordedRun, observer: WeightObserver) -> int | None:
    """Return before which step of a run model and optimizer had their present state, or None.

    Seeds and counters are set as they were. Keras does not restore all of them.
    """
    if observer.iteration() == 0:
        return None
    now = observer.variables.snapshot()
    step = run.step_store.find(now.theta, now.state)
    if step is None or not same(_after(run, step - 1).momentum, now.momentum):
        return None
    observer.variables.set_state(run.step_store.state(step))
    return step


def _after(run: RecordedRun, step: int) -> Snapshot:
    """Return the state after a step; −1 stands for before training."""
    return run.step_store.start if step < 0 else run.step_store.step(step).known


def same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    """Return whether two vectors are equal, or both missing."""
    return first is second or (first is not None and second is not None and np.array_equal(first, second))
