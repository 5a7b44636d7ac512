"""Forecast of the disk space and time that a recording takes, made at its first step, before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf
from rich.filesize import decimal

from explaind_tf.errors import RefusedError
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.runs.estimate import Estimate, record_bytes
from explaind_tf.runs.format.manifest import new_run_id
from explaind_tf.runs.format.step_records import Snapshot, StepRecord, encode_step
from explaind_tf.runs.graphs.training_variables import TrainingVariables
from explaind_tf.runs.samples import encode_sample
from explaind_tf.runs.storage.files import AnyPath, free_bytes

# Share of the free disk to use if no budget is given: other programs write to the disk, too.
_SHARE_OF_FREE = 0.25


@dataclass(frozen=True)
class Planned:
    """The planned length of a fit."""

    steps: int
    steps_per_epoch: int


def moving_line(variables: TrainingVariables, planned: Planned | None) -> str:
    """Return what a keyframe takes, before the first step is taken, in words.

    Parameters
    ----------
    variables : TrainingVariables
        The variables of model and optimizer.
    planned : Planned or None
        Planned length of the fit, if it is known.
    """
    weights = sum(variable.shape.num_elements() for variable in variables.parameters)
    groups = (variables.parameters, variables.momentum, variables.second_moment)
    step, once = sum(_bytes_of(group) for group in groups), _bytes_of(variables.state)
    line = f"{weights:,} weights move, {step / weights:.3g} bytes each in a step, {decimal(step)} a step"
    if planned is not None:
        line += f", {decimal(step * planned.steps)} in {planned.steps:,} steps with every=1"
    return f"{line}; of the {decimal(once)} of frozen weights and other state, what rests is recorded once"


def _bytes_of(variables: Sequence[tf.Variable]) -> int:
    return sum(variable.shape.num_elements() * variable.dtype.size for variable in variables)


def estimate_recording(
    first: StepRecord,
    batch: StepBatch | None,
    planned: Planned,
    *,
    graphs: int,
    training: int,
    keeps_training: bool,
    start: Snapshot,
    replicas: int = 1,
) -> Estimate:
    """Return the estimate of a run, with every step a keyframe.

    Parameters
    ----------
    first : StepRecord
        Record of the first step, with its snapshot. Its rows need not be known.
    batch : StepBatch or None
        Batch of the first step; None if batches are not recorded.
    planned : Planned
        Planned length of the fit. The estimate assumes that the same samples return in each epoch.
    graphs, training : int
        Bytes of the exported functions, and of the exported training step.
    keeps_training : bool
        Whether the training step is stored in any case.
    start : Snapshot
        The state before training. Records do not hold again what is still as it was then, such as frozen weights.
    replicas : int
        Number of replicas. The batch of each of them has a record. The last one holds the weights.
    """
    run_id, size = new_run_id(), 0 if batch is None else len(batch)
    count = min(planned.steps, planned.steps_per_epoch) * size * replicas
    rows = np.linspace(0, max(count - 1, 0), size).astype(np.int64)  # with as many digits as later rows
    first = replace(first, rows=rows, sample_count=count)
    row = max(count - 1, 0)
    kinds = {
        "start": replace(first, is_unchanged=False),
        "between": replace(first, is_unchanged=False).without_snapshot(),
        "unchanged": replace(first, snapshot=None, is_unchanged=True),
    }
    size_of = {kind: record_bytes(encode_step(record, run_id)) for kind, record in kinds.items()}
    keyframe = record_bytes(encode_step(kinds["start"], run_id, start.state))
    return Estimate(
        keyframe=keyframe + (replicas - 1) * size_of["unchanged"],
        between=size_of["between"],
        frozen=size_of["start"] - keyframe,
        samples=0 if batch is None else count * record_bytes(encode_sample(batch.sample(0), row, run_id)),
        graphs=graphs,
        training=training,
        keeps_training=keeps_training,
        steps=planned.steps,
    )


def choose(dense: Estimate, options: RecordingOptions, run_dir: AnyPath) -> Estimate:
    """Return the estimate with the keyframe distance that the user chose, or the smallest one that fits ("auto").

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
                f'The free space at {run_dir} is not known. There every="auto" needs disk_budget=, the bytes that the run '
                f"may take."
            )
        if options.disk_budget is None:
            limits = [int(limits[0] * _SHARE_OF_FREE)]
        return dense.fit_into(min(limits))
    chosen = replace(dense, every=options.every)
    if free is not None and chosen.total > free:
        raise RefusedError(
            f"{chosen.steps:,} steps with every={chosen.every} take {decimal(chosen.total)}, but only {decimal(free)} are "
            f'free on the disk of {run_dir}. Free disk space, record to another disk, or keep fewer keyframes (every="auto" '
            f"finds how many fit). Nothing was written."
        )
    return chosen
