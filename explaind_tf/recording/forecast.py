"""What a recording will take, known at its first step and said before anything is written."""

from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from rich.filesize import decimal

from explaind_tf.errors import RefusedError
from explaind_tf.recording.observing.tap import TappedBatch
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.runs.estimate import Estimate, Seconds, record_bytes
from explaind_tf.runs.format.manifest import new_run_id
from explaind_tf.runs.format.step_records import StepRecord, encode_step
from explaind_tf.runs.samples import encode_sample
from explaind_tf.runs.storage.files import AnyPath, free_bytes

# Of a free disk, without a budget: others write to it, too.
_SHARE_OF_FREE = 0.25
# Seconds that can be worded; millions of years.
_LONGEST = timedelta.max.total_seconds() // 2


@dataclass(frozen=True)
class Planned:
    """How long a fit is to be."""

    steps: int
    steps_per_epoch: int


def estimate_recording(
    first: StepRecord, batch: TappedBatch, planned: Planned, *, graphs: int, training: int
) -> Estimate:
    """Return what a run will take, with every step a keyframe.

    Parameters
    ----------
    first : StepRecord
        Of the first step, with its snapshot; its rows need not be known.
    batch : TappedBatch
        Of the first step.
    planned : Planned
        Samples are taken to come again in each epoch.
    graphs, training : int
        Bytes of the exported functions, and of the exported training step.
    """
    run_id, size = new_run_id(), len(batch)
    count = min(planned.steps, planned.steps_per_epoch) * size
    rows = np.linspace(0, max(count - 1, 0), size).astype(np.int64)  # of as many digits as those to come
    first = replace(first, rows=rows, sample_count=count)
    row = max(count - 1, 0)
    return Estimate(
        keyframe=record_bytes(encode_step(first, run_id)),
        between=record_bytes(encode_step(first.without_snapshot(), run_id)),
        samples=count * record_bytes(encode_sample(batch.sample(0), row, run_id)),
        graphs=graphs,
        training=training,
        steps=planned.steps,
    )


def choose(dense: Estimate, options: RecordingOptions, run_dir: AnyPath) -> Estimate:
    """Return the estimate with the distance of keyframes that the user chose, or left to be found.

    Raises
    ------
    RefusedError
        If the disk or the budget cannot hold the run.
    """
    free = free_bytes(run_dir)
    if options.every == "auto":
        limits = [limit for limit in (options.disk_budget, free) if limit is not None]
        if not limits:
            raise RefusedError(
                f'How much fits into {run_dir} is not known: every="auto" needs disk_budget=, the bytes that it may take.'
            )
        if options.disk_budget is None:
            limits = [int(limits[0] * _SHARE_OF_FREE)]
        return dense.fit_into(min(limits))
    chosen = replace(dense, every=options.every)
    if free is not None and chosen.total > free:
        raise RefusedError(
            f"{chosen.steps:,} steps with every={chosen.every} take {decimal(chosen.total)}; {decimal(free)} are free where "
            f'{run_dir} is. Free some, record to another disk, or keep fewer keyframes: every="auto" finds how few. '
            f"Nothing was written."
        )
    return chosen


def describe(estimate: Estimate, free: int | None, seconds: Seconds | None) -> str:
    """Return a line for the user.

    Parameters
    ----------
    estimate : Estimate
        Of the run.
    free : int or None
        Bytes free on the disk, if that is known.
    seconds : Seconds or None
        What a step takes, if it is known.
    """
    distance = "" if estimate.every == 1 else f" (all weights every {estimate.every} steps)"
    line = f"{decimal(int(estimate.per_step))} a step{distance}, {decimal(estimate.total)} for {estimate.steps:,} steps"
    if free is not None:
        line += f", {estimate.total / max(free, 1):.1%} of the free disk"
    if seconds is None:
        return line
    spans = (min(value, _LONGEST) for value in estimate.attribution_seconds(seconds))
    few, many = (timedelta(seconds=round(value)) for value in spans)
    return (
        f"{line}. Recording adds about {seconds.recording / max(seconds.training, 1e-9):.0%} to a training step of "
        f"{seconds.training:.2g} s; a question to the run will take some {few} to {many} (h:mm:ss)"
    )
