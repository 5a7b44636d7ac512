"""How long an answer would take with several workers: a model of its cost."""

from dataclasses import dataclass

# Bytes a second from one machine to another: a network of a gigabit.
_RATE = 100e6
# Bytes of what the path sweep finds for a block of inputs in one step: its quadrature.
_QUADRATURE_BYTES = 300
# As many workers as are looked at.
_MOST = 1024
# Fewer workers are enough if they take at most this much longer than the best number of them.
_ENOUGH = 1.1


@dataclass(frozen=True)
class Work:
    """What an answer consists of. Seconds are those of one process for the whole answer.

    Attributes
    ----------
    reading : float
        To read all steps and split them into causes. Each worker does it.
    path, back : float
        The passes of the path sweep, which is cut over inputs, and of the reverse sweep, which is cut over steps.
    inputs, steps, blocks : int
        Numbers of inputs, of steps and of blocks of inputs.
    row_bytes : int
        Of one row for each measurement: what leaves a segment of the reverse sweep.
    ledger_bytes, working_bytes : int
        Of the answer, and of what a worker holds beside it and beside a segment's kept rows.
    """

    reading: float
    path: float
    back: float
    inputs: int
    steps: int
    blocks: int
    row_bytes: int
    ledger_bytes: int
    working_bytes: int


@dataclass(frozen=True)
class Shared:
    """What an answer would take with workers that are each as fast as this process.

    Attributes
    ----------
    workers : int
        Their number.
    seconds : float
        Estimated time, without the compilation in the first step.
    peak_bytes : int
        Memory of one worker, except TensorFlow itself.
    moved_bytes : int
        Bytes that go from one process to another.
    enough : int
        The fewest workers with which the answer takes at most a tenth longer than with any number of them.
    """

    workers: int
    seconds: float
    peak_bytes: int
    moved_bytes: int
    enough: int


def share_out(work: Work, workers: int) -> Shared:
    """Return what an answer would take with a number of workers.

    Raises
    ------
    ValueError
        If the number is not positive.
    """
    if workers < 1:
        raise ValueError(f"workers must be 1 or more; got {workers}.")
    times = {count: _seconds(work, count) for count in range(1, max(workers, _MOST) + 1)}
    best = min(times.values())
    return Shared(
        workers,
        times[workers],
        work.working_bytes + work.ledger_bytes,
        _moved(work, workers),
        next(count for count, spent in times.items() if spent <= _ENOUGH * best),
    )


def _seconds(work: Work, workers: int) -> float:
    """Return the length of the critical path: the longest part of each sweep, and what is moved after it."""
    path = work.path / min(workers, work.inputs)
    back = work.back / min(workers, work.steps)
    return work.reading + path + back + _moved(work, workers) / _RATE


def _moved(work: Work, workers: int) -> int:
    """Return the bytes that are moved: entries, what the path sweep found, and what leaves each segment."""
    segments = min(workers, work.steps) if work.back else 0
    found = work.steps * work.blocks * _QUADRATURE_BYTES
    # Each part has the entries of its inputs, each segment those of all.
    entries = work.ledger_bytes * (1 + segments)
    between = max(0, segments - 1) * work.row_bytes
    return entries + found * (1 + bool(segments)) + between
