"""Checks of a training with several replicas: what the record could not hold, or the ledger not account for, is refused."""

from typing import Any

import keras
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.exporting.pruned import operations_behind
from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.recording.recording_options import RecordingOptions


def check_replicas(model: keras.Model, options: RecordingOptions) -> None:
    """Check a training under a strategy before it begins.

    Raises
    ------
    RefusedError
        If it cannot be recorded. The message says what to write instead.
    """
    strategy = model.distribute_strategy
    if type(strategy) is not tf.distribute.MirroredStrategy:
        raise RefusedError(
            f"Training under {type(strategy).__name__} cannot be recorded. Of the strategies of tf.distribute, only "
            f"MirroredStrategy can: create, compile and fit the model with that one, or outside of any scope."
        )
    for found, instead in _not_with_replicas(model, options):
        raise RefusedError(
            f"The model is trained under a MirroredStrategy (replicas: {strategy.num_replicas_in_sync}), and {found}. That "
            f"cannot be recorded together. {instead}"
        )


def _not_with_replicas(model: keras.Model, options: RecordingOptions) -> list[tuple[str, str]]:
    """Return what of a training does not go together with replicas, and what to write instead, in words."""
    optimizer: Any = model.optimizer
    found = {
        (
            f"steps_per_execution={model.steps_per_execution}",
            "Use compile(..., steps_per_execution=1).",
        ): model.steps_per_execution > 1,
        ("jit_compile=True", "Use compile(..., jit_compile=False)."): bool(model.jit_compile),
        (
            f"every={options.every!r}",
            "Steps of replicas cannot be trained again from the record: use PathLogger(every=1).",
        ): options.every != 1,
        ("resume=True", "Record into another directory."): options.resume,
        (
            "a LossScaleOptimizer scales the loss",
            "Train with the policy float32 or mixed_bfloat16.",
        ): isinstance(optimizer, keras.optimizers.LossScaleOptimizer),
        (
            "the optimizer accumulates gradients",
            "Leave out gradient_accumulation_steps, and use larger batches.",
        ): bool(getattr(optimizer, "gradient_accumulation_steps", None)),
    }
    return [words for words, is_so in found.items() if is_so]


def clipping_of_replicas(optimizer: Any) -> str | None:
    """Return why the samples of replicas cannot be told apart, if an optimizer clips gradients; None if it does not."""
    names = ("clipnorm", "global_clipnorm", "clipvalue")
    found = [f"{name}={getattr(optimizer, name)}" for name in names if getattr(optimizer, name)]
    if not found:
        return None
    return (
        f"The optimizer has {found[0]}, and Keras clips the gradient of each replica before it adds them up. This version "
        f"cannot account for that by sample: leave out {found[0].split('=')[0]}, or train on one device."
    )


def refuse_state_of_one_replica(functions: PureFunctions, variables: int, state: list[Any]) -> None:
    """Refuse losses that read what each replica has learned from its own batches, such as a running average.

    Replicas have copies of their own of the non-trainable variables, and Keras does not make them equal. The record has
    those of the first replica. BatchNormalization keeps such averages, too, but losses do not read them in training.

    Parameters
    ----------
    functions : PureFunctions
        The model's functions.
    variables : int
        Number of trainable variables.
    state : list of keras.Variable
        The non-trainable variables.

    Raises
    ------
    RefusedError
        If there is such a variable.
    """
    concrete = functions.sample_losses
    arguments = [tensor.op.name for tensor in concrete.inputs]
    places, data = arguments[variables : variables + len(state)], set(arguments[variables + len(state) : -1])
    behind = [operations_behind([new]) for new in concrete.outputs[1:]]
    apart: set[str] = set()
    while added := {
        place
        for place, read in zip(places, behind, strict=True)
        if place not in apart and read & (data | apart)
    }:
        apart |= added
    read = operations_behind(concrete.outputs[:1])
    found = [v.path for v, place in zip(state, places, strict=True) if place in read & apart]
    if found:
        raise RefusedError(
            f"The losses read {found[0]!r}, a non-trainable variable that each replica changes by its own batches, so that "
            f"its values differ between replicas. The record has those of the first replica only. Train on one device, or "
            f"keep the losses free of it."
        )
