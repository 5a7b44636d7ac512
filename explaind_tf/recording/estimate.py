"""What a recording will take, known at its first step and said before anything is written."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
from rich.filesize import decimal

from explaind_tf.errors import RefusedError
from explaind_tf.recording.options import Options
from explaind_tf.recording.tap import TappedBatch
from explaind_tf.runs.estimate import Estimate, record_bytes
from explaind_tf.runs.samples import Sample, encode_sample
from explaind_tf.runs.schema import new_run_id
from explaind_tf.runs.step_records import StepRecord, encode_step

# Of a free disk, without a budget: others write to it, too.
_SHARE_OF_FREE = 0.25


@dataclass(frozen=True)
class Planned:
    """How long a fit is to be."""

    steps: int
    steps_per_epoch: int


def estimate_recording(first: StepRecord, batch: TappedBatch, planned: Planned, graph_bytes: int) -> Estimate:
    """Return what a run will take, with every step a keyframe.

    Parameters
    ----------
    first : StepRecord
        Of the first step, with its snapshot; its rows need not be known.
    batch : TappedBatch
        Of the first step.
    planned : Planned
        Samples are taken to come again in each epoch.
    graph_bytes : int
        Bytes of the exported graphs.
    """
    run_id, size = new_run_id(), len(batch)
    count = min(planned.steps, planned.steps_per_epoch) * size
    rows = np.linspace(0, max(count - 1, 0), size).astype(np.int64)  # of as many digits as those to come
    first = replace(first, rows=rows)
    row = max(count - 1, 0)
    sample = Sample(
        int(batch.fingerprints[0]),
        None if batch.ids is None else batch.ids[0],
        [array[0] for array in batch.inputs],
        [array[0] for array in batch.targets],
    )
    return Estimate(
        keyframe=record_bytes(encode_step(first, run_id)),
        between=record_bytes(encode_step(first.without_snapshot(), run_id)),
        samples=count * record_bytes(encode_sample(sample, row, run_id)),
        fixed=graph_bytes,
        steps=planned.steps,
    )


def choose(dense: Estimate, options: Options, run_dir: Path) -> Estimate:
    """Return the estimate with the distance of keyframes that the user chose, or left to be found.

    Raises
    ------
    RefusedError
        If the disk or the budget cannot hold the run.
    """
    free = free_bytes(run_dir)
    if options.every == "auto":
        budget = int(free * _SHARE_OF_FREE) if options.disk_budget is None else options.disk_budget
        budget = min(budget, free)
        found = dense.within(budget)
        if found is None:
            least = replace(dense, every=max(1, dense.steps)).total
            raise RefusedError(
                f"{dense.steps} steps take {decimal(least)} with no keyframe between the first and the last. {run_dir} may "
                f"take {decimal(budget)}; {decimal(free)} are free. Give another disk or a larger disk_budget. Nothing was "
                f"written."
            )
        return found
    chosen = replace(dense, every=options.every)
    if chosen.total > free:
        fitting = dense.within(int(free * 0.9))
        cure = "Free some, or record to another disk"
        if fitting is not None and fitting.every > options.every:
            cure += f', or keep fewer keyframes: PathLogger(..., every={fitting.every}) or every="auto"'
        raise RefusedError(
            f"{chosen.steps} steps with every={chosen.every} take {decimal(chosen.total)}; {decimal(free)} are free where "
            f"{run_dir} is. {cure}. Nothing was written."
        )
    return chosen


def free_bytes(path: Path) -> int:
    """Return the free bytes of the disk that a path, which need not exist, is on."""
    existing = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    return shutil.disk_usage(existing).free


def describe(estimate: Estimate, free: int, seconds: Sequence[tuple[float, float]]) -> str:
    """Return a line for the user.

    Parameters
    ----------
    estimate : Estimate
        Of the run.
    free : int
        Bytes free on the disk.
    seconds : sequence of tuple
        Of some steps: seconds of training, seconds of recording.
    """
    distance = "" if estimate.every == 1 else f" (all weights every {estimate.every} steps)"
    line = (
        f"{decimal(int(estimate.per_step))} a step{distance}, {decimal(estimate.total)} for {estimate.steps} steps, "
        f"{estimate.total / max(free, 1):.1%} of the free disk"
    )
    if not seconds:
        return line
    training, recording = (float(np.median(part)) for part in zip(*seconds, strict=True))
    return (
        f"{line}. Recording adds about {recording / max(training, 1e-9):.0%} to a step of {training:.2g} s; "
        f"{_attribution(estimate, training)}"
    )


# Training steps that attribution takes a recorded step, few and many measurements or inputs (experiments/benchmarks).
_STEPS_A_STEP = (2, 8)


def _attribution(estimate: Estimate, training: float) -> str:
    again = 0 if estimate.every == 1 else 1
    low, high = (
        timedelta(seconds=round(estimate.steps * training * (factor + again))) for factor in _STEPS_A_STEP
    )
    return f"a question to the run will take some {low} to {high} (h:mm:ss)"
