"""Where a training diverged: what was the first thing in a step that was not finite."""

from collections.abc import Sequence

import keras
import numpy as np

from explaind_tf.recording.batch_replay import BatchReplay
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.session_state import FirstStep, Position
from explaind_tf.runs.format.divergence import Divergence
from explaind_tf.runs.format.step_records import Snapshot

BETWEEN_STEPS = "a change of the weights between steps, by something other than the optimizer"


def find_divergence(
    at: Position,
    after: Snapshot,
    variables: Sequence[keras.Variable],
    batches: Sequence[StepBatch],
    first: FirstStep,
    loss_scale: float,
) -> Divergence:
    """Return where the weights of a step became NaN or infinite.

    Parameters
    ----------
    at : Position
        The position of the recording, before the step.
    after : Snapshot
        What the step led to.
    variables : sequence of keras.Variable
        The trainable variables.
    batches : sequence of StepBatch
        The batch of each replica, if batches are recorded.
    first : FirstStep
        Holds the exported losses, if batches are recorded.
    loss_scale : float
        What the loss was multiplied by.
    """
    if not at.changes.are_finite:
        return Divergence(at.steps, BETWEEN_STEPS)
    if first.losses is not None:
        before = at.changes.applied_to(at.last)
        for number, batch in enumerate(batches):
            if not len(batch):  # of a replica that got none
                continue
            replay = BatchReplay(first.losses, batch, list(variables), before, loss_scale)
            began_in = _in_batch(batch) or _in_replay(replay, variables)
            if began_in is not None:
                return Divergence(at.steps + number, began_in)
    return Divergence(at.steps, f"the weights {_names(variables, after.theta)}")


def _in_batch(batch: StepBatch) -> str | None:
    """Return which samples of a batch are not finite, in words; None if all are."""
    parts = {"inputs": batch.inputs, "targets": batch.targets, "sample weights": batch.weights}
    for name, arrays in parts.items():
        floats = [array for array in arrays if array.dtype.kind == "f"]
        finite = [np.isfinite(array).reshape(len(batch), -1).all(axis=1) for array in floats]
        if finite and not (whole := np.logical_and.reduce(finite)).all():
            return f"the {name} of {_samples(whole, batch)}"
    return None


def _in_replay(replay: BatchReplay, variables: Sequence[keras.Variable]) -> str | None:
    """Return whether the loss or its gradient is not finite at the start of the step, in words; None if both are."""
    losses = replay.losses()
    if not np.isfinite(losses).all():
        return f"the loss of {_samples(np.isfinite(losses))}"
    gradient = replay.gradient()
    return None if np.isfinite(gradient).all() else f"the gradient of {_names(variables, gradient)}"


def _samples(is_finite: np.ndarray, batch: StepBatch | None = None) -> str:
    """Name the samples of a batch that are not finite."""
    places = np.flatnonzero(~is_finite)
    sample_id = "" if batch is None or batch.ids is None else f" (id {batch.ids[places[0]]!r})"
    one = f"sample {places[0]} of the batch{sample_id}"
    return one if len(places) == 1 else f"{len(places)} samples of the batch, the first of them {one}"


def _names(variables: Sequence[keras.Variable], vector: np.ndarray) -> str:
    """Name the variables of which a vector (D,) is not finite."""
    stops = np.cumsum([np.prod(v.shape, dtype=int) for v in variables])
    parts = np.split(np.isfinite(vector), stops[:-1])
    found = [v.path for v, part in zip(variables, parts, strict=True) if not part.all()]
    others = f" and {len(found) - 1} more of {len(variables)} variables" if len(found) > 1 else ""
    return f"{found[0]!r}{others}"
