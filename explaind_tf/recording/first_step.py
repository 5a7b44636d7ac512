"""The check of the first step: what the record of samples does not explain is refused."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.laws.used_gradients import Arithmetic, find_mismatch
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.batch_replay import BatchReplay
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.observing.observer import StepObserver
from explaind_tf.recording.observing.weight_observer import StepOutcome
from explaind_tf.recording.session_state import FirstStep, Position, Training
from explaind_tf.runs.graphs.precision import eps_of


def _arithmetic_of(model: keras.Model) -> Arithmetic:
    """Return the numbers that the training of a model computes with."""
    names = {layer.compute_dtype for layer in model._flatten_layers()} - {None}
    layers = [dtype for dtype in map(tf.dtypes.as_dtype, names) if dtype.is_floating]
    weights_eps = eps_of(tf.dtypes.as_dtype(model.trainable_variables[0].dtype))
    coarsest = max([weights_eps, *map(eps_of, layers)])
    return Arithmetic.of(weights_eps, coarsest, with_xla=bool(model.jit_compile))


def _check_clipping(optimizer: PathOptimizer) -> None:
    """Check that the clipping of the first step can be accounted for.

    Raises
    ------
    RefusedError
        If ``clipvalue`` was applied to a sparse gradient.
    """
    if optimizer.clips_slices:
        raise RefusedError(
            "The optimizer has clipvalue set, and the model has a sparse gradient, such as that of an Embedding. Keras "
            "clips each slice (the occurrence of a token) by itself, so the clipped gradient is not a function of the "
            "batch's gradient. This version cannot account for that: use clipnorm or global_clipnorm."
        )


def _check_losses(replay: BatchReplay, count: int) -> None:
    loss_shape = replay.losses().shape
    if loss_shape != (count,):
        raise RefusedError(
            f"The loss has values of shape {loss_shape} for a batch of {count} samples, so it cannot be split over the "
            f"samples. Return per-sample values of shape (batch,), as keras.losses do."
        )


def _rounding(replays: Sequence[BatchReplay], arithmetic: Arithmetic) -> np.ndarray:
    return np.sum([replay.rounding(arithmetic) for replay in replays], axis=0)


def check_first_step(
    training: Training,
    observer: StepObserver,
    first: FirstStep,
    at: Position,
    batches: Sequence[StepBatch],
    outcome: StepOutcome,
) -> None:
    """Check that the recorded batches, replayed through the exported functions, give Keras' own gradient.

    This detects everything that changes a step but is not recorded: a train_step that computes another loss, random numbers
    that do not come from a Keras seed generator. When a run is resumed, the functions are those of its recording, and the
    model must still compute the same.

    Parameters
    ----------
    training : Training
        What is trained.
    observer : StepObserver
        Reads the optimizer's variables.
    first : FirstStep
        The state before the step, and the exported functions.
    at : Position
        The position of the recording, before the step.
    batches : sequence of StepBatch
        The batch of each replica.
    outcome : StepOutcome
        What the step left.

    Raises
    ------
    RefusedError
        If the gradient that the optimizer used is not the replayed one, up to rounding.
    """
    model, optimizer = training.model, training.optimizer
    assert optimizer is not None and first.losses is not None  # otherwise batches are not recorded
    _check_clipping(optimizer)
    before, variables = at.changes.applied_to(at.last), model.trainable_variables
    updates = optimizer.updates_before(at.iteration)
    found = observer.used_gradient(first.start, before.theta, outcome, updates, len(batches))
    if found is None:
        return
    scale = observer.loss_scale_in(at.last)
    replays = [BatchReplay(first.losses, batch, variables, before, scale) for batch in batches]
    for batch, replay in zip(batches, replays, strict=True):
        _check_losses(replay, len(batch))
    if not np.isfinite(found.used.value).all():
        raise RefusedError(
            "The gradient of the first step is NaN or infinite. Look for NaN or infinite values in the first batch, or "
            "for a loss that is not finite there. Nothing was written."
        )
    mismatch = find_mismatch(
        found.used,
        found.preparation(sum((replay.gradient() for replay in replays), found.waiting)),
        replays[0].sizes,
        lambda: found.preparation.scaled(_rounding(replays, _arithmetic_of(model))),
    )
    if mismatch is not None:
        raise RefusedError(
            f"The first step was replayed from the record, and its gradient is not the one that Keras used: for "
            f"{variables[mismatch.variable].path!r} they differ by {mismatch.difference:.2g}, and rounding explains "
            f"{mismatch.allowed:.2g} (Euclidean norms). Something that is not recorded changed the step. Possible causes: "
            f"a train_step or compute_loss of your own; random numbers that are not from a keras.random.SeedGenerator; a "
            f"random layer (Dropout, GaussianNoise) under jit_compile=True, where XLA draws other numbers from the same "
            f"seed (use compile(..., jit_compile=False)); a custom gradient within a loop, a branch or a tf.function; or, "
            f"when a run is resumed, a model that does not compute what the recorded one did."
        )
