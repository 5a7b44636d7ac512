"""Numbers in a step's record that no training leaves there. Checksums do not show them: who writes a file makes them, too.

Infinite values of a second moment and of a model's own state are not among them. A squared gradient may overflow, and the
best loss so far may begin at infinity.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.format.expect import expect
from explaind_tf.runs.format.step_records import END, STEP, Layout, StepRecord

# More would take a century.
_MOST_UPDATES = 2**31


def check_numbers(record: StepRecord, layout: Layout) -> None:
    """Refuse a record with numbers that no training leaves there.

    Raises
    ------
    RunFormatError
        At the first of them. The message names the step, and the variable if it is one's.
    """
    try:
        _check_counts(record)
        _check_batch(record)
        _check_vectors(record, layout.variables)
        if record.snapshot is not None:
            _check_others(record.snapshot.optimizer, layout.optimizer)
        if record.kind == END:
            _check_end(record)
    except RunFormatError as error:
        raise RunFormatError(f"{record.kind} {record.step}: {str(error).removesuffix('.')}") from None


def _check_counts(record: StepRecord) -> None:
    expect(record.sample_count >= 0, f"it counts {record.sample_count} samples; a count cannot be negative")
    if record.updates:
        expect(
            not record.is_skipped, "it updates the weights, and says that the optimizer left its batch out"
        )
        expect(
            0 <= record.iteration < _MOST_UPDATES,
            f"iteration={record.iteration} of an update must be a whole number from 0 to {_MOST_UPDATES - 1}",
        )
    if record.is_unchanged:
        expect(record.kind == STEP, "it says that a step changed nothing, and is no step")
        expect(not record.updates, "it updates the weights, and says that they are those before the step")
    rate = record.learning_rate
    expect(bool(np.isfinite(rate)), f"learning_rate={rate} must be a finite number")
    factors = record.clip_factors
    if factors is not None:
        # Clipping makes nothing longer, but may round up.
        fits = bool(((factors >= 0) & (factors <= 1 + 1e-6)).all())
        expect(fits, f"clip_factors={factors} must be numbers from 0 to 1")


def _check_batch(record: StepRecord) -> None:
    rows = record.rows
    if rows.size:
        low, high = int(rows.min()), int(rows.max())
        expect(
            low >= 0 and high < record.sample_count,
            f"its batch names the samples {low} to {high}, and there were {record.sample_count} when it was written",
        )
    if not record.is_skipped:  # what was not a number may be why a loss scale left the batch out
        for weights in record.weights:
            expect(_are_finite(weights), "weights of its samples are NaN or infinite")


def _check_vectors(record: StepRecord, variables: Sequence[VariableSpec]) -> None:
    for what, vector in _weights(record):
        if vector is not None and not _are_finite(vector):
            path = _at(variables, int(np.argmin(np.isfinite(vector))))
            raise RunFormatError(f"{what} of {path!r} {_found(vector)}")
    second = None if record.snapshot is None else record.snapshot.second_moment
    if second is not None and second.size and np.isnan(second.min()):
        raise RunFormatError(
            f"the second moment of {_at(variables, int(np.argmax(np.isnan(second))))!r} holds NaN"
        )


def _check_end(record: StepRecord) -> None:
    """Check that what something set after the last step is what there was at the end."""
    if record.snapshot is None:
        raise RunFormatError("it lacks the weights at the end")
    end = record.snapshot
    pairs = [] if record.theta_before is None else [(record.theta_before, end.theta)]
    pairs += [] if record.state_before is None else zip(record.state_before, end.state, strict=True)
    expect(
        all(before.tobytes() == after.tobytes() for before, after in pairs),
        "the weights or the state that something set are not those at the end",
    )


def _weights(record: StepRecord) -> Iterator[tuple[str, np.ndarray | None]]:
    if record.snapshot is not None:
        yield "the weights", record.snapshot.theta
        yield "the momentum", record.snapshot.momentum
    yield "the weights after the update", record.theta_stepped
    yield "the weights before the step", record.theta_before


def _check_others(arrays: Sequence[np.ndarray], specs: Sequence[VariableSpec]) -> None:
    """Check the optimizer's other variables: learning rates, averages of weights."""
    for array, spec in zip(arrays, specs, strict=True):
        if spec.is_floating and array.size and np.isnan(array.min()):
            raise RunFormatError(f"the optimizer's variable {spec.path!r} holds NaN")


def _are_finite(array: np.ndarray) -> bool:
    """Return whether all values are finite. Two passes without a copy: records are checked each time they are read."""
    if array.dtype.kind not in "fc" or not array.size:
        return True
    return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def _at(variables: Sequence[VariableSpec], place: int) -> str:
    """Return the path of the variable that holds a place of θ."""
    ends = np.cumsum([variable.size for variable in variables])
    return variables[int(np.searchsorted(ends, place, side="right"))].path


def _found(vector: np.ndarray) -> str:
    return "hold NaN" if np.isnan(vector).any() else "hold infinite values"
