"""What is refused before or at the first training step, because the ledger could not hold it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.recorder import SLOTS
from explaind_tf.recording.export import PureFunctions, training_argument
from explaind_tf.recording.observer import UsedGradient
from explaind_tf.recording.tap import Tap, TappedBatch
from explaind_tf.runs import structure as struct
from explaind_tf.runs.replay import loss_scale

# The replayed gradient of the first step may differ from Keras' by rounding (XLA, other op orders), and by
# no more: a class weight or an unrecorded random number moves it by whole per cents.
_FIRST_STEP_TOLERANCE = {"float32": 1e-3, "float64": 1e-8}


def check_fit(model: keras.Model, tap: Tap | None, params: dict[str, Any]) -> PathOptimizer:
    """Check model, optimizer and data before training, and return the optimizer.

    Raises
    ------
    RefusedError
        With what was found, what is needed and how to get there.
    """
    if tap is None:
        raise RefusedError(
            "fit() was given a PathLogger but its dataset was not tapped, so the logger cannot see which samples a "
            "step consumes. Pass the dataset through it: model.fit(logger.tap(train_ds), callbacks=[logger])."
        )
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise RefusedError(
            "The model was compiled under the mixed_float16 policy, for which Keras wraps the optimizer into a "
            "LossScaleOptimizer. "
            "This version does not account for mixed precision: use the float32 policy."
        )
    if not isinstance(optimizer, PathOptimizer):
        raise RefusedError(
            f"The model was compiled with {type(optimizer).__module__}.{type(optimizer).__name__}. The ledger needs "
            f"an optimizer that records what it used in each step: compile with "
            f"explaind_tf.PathAdamW(...) or explaind_tf.PathSGD(...), which take the arguments of keras.optimizers.AdamW "
            f"and SGD and give the same weights."
        )
    if params.get("steps") is None:
        raise RefusedError(
            "The dataset's number of batches is unknown (a filter or a generator) and fit() got no steps_per_epoch. Keras "
            "then applies one more weight decay, without data, at the end of each epoch. Say how many batches there "
            "are: ds.apply(tf.data.experimental.assert_cardinality(n)) before the tap, or fit(..., steps_per_epoch=n)."
        )
    if model.steps_per_execution > SLOTS:
        raise RefusedError(
            f"The model was compiled with steps_per_execution={model.steps_per_execution}. The steps of one execution are "
            f"kept in memory until it ends; at most {SLOTS} can be: compile(..., steps_per_execution={SLOTS})."
        )
    if tf.distribute.has_strategy() or model.distribute_strategy.num_replicas_in_sync > 1:
        raise RefusedError("Training under a tf.distribute strategy cannot be recorded by this version.")
    return optimizer


def build_model(model: keras.Model, tap: Tap) -> None:
    """Create the variables of a model that is built only on its first call, without running it."""
    if model.built:
        return
    symbolic = struct.map_leaves(
        tap.inputs, lambda leaf: keras.KerasTensor((None, *leaf.shape), dtype=leaf.dtype)
    )
    model(symbolic, **training_argument(model, False))


def check_variables(model: keras.Model) -> None:
    """Check that all trainable variables have one floating dtype and that layers compute in it."""
    dtypes = {variable.dtype for variable in model.trainable_variables}
    if not dtypes:
        raise RefusedError("The model has no trainable variables: there is nothing to account for.")
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        raise RefusedError(
            f"The trainable variables have the dtypes {sorted(dtypes)}; this version needs all float32 or all float64."
        )
    for layer in model._flatten_layers():
        if layer.compute_dtype != layer.variable_dtype:
            raise RefusedError(
                f"Layer {layer.name!r} computes in {layer.compute_dtype} with weights in {layer.variable_dtype} "
                f"(mixed precision), which this version does not account for. Use one dtype policy."
            )


def check_stepped_variables(model: keras.Model, optimizer: PathOptimizer) -> None:
    """Check that the optimizer updates no variable that is not trainable (any more).

    Raises
    ------
    RefusedError
        If ``trainable`` was changed after the training step was compiled.
    """
    keys = {optimizer._get_variable_index(variable) for variable in model.trainable_variables}
    frozen = [v.path for i, v in enumerate(optimizer._trainable_variables) if i in optimizer._updated - keys]
    if frozen:
        raise RefusedError(
            f"The optimizer updated {frozen}, which the model does not count among its trainable variables: `trainable` was "
            f"changed after compile(). Compile the model again, as Keras asks for, and train with a new PathLogger."
        )


def check_first_step(
    functions: PureFunctions,
    batch: TappedBatch,
    *,
    theta: list[np.ndarray],
    state: list[np.ndarray],
    used: UsedGradient | None,
) -> None:
    """Check that the recorded batch, replayed through the exported functions, gives Keras' own gradient.

    This catches whatever changes a step outside of what is recorded: class weights, a train_step that computes
    another loss, data changed after the tap, random numbers that are not drawn from a Keras seed generator.

    Raises
    ------
    RefusedError
        If the gradient that the optimizer used is not the replayed one.
    """
    assert functions.loss is not None
    if used is None:
        return
    dtype = used.value.dtype
    weights = np.ones(len(batch), dtype) if batch.weights is None else batch.weights.astype(dtype)
    parameters = [tf.constant(value) for value in theta]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        losses = functions.sample_losses(*parameters, *state, *batch.inputs, *batch.targets, weights)[0]
        scale = loss_scale(functions.loss.reduction, weights)
        total = tf.reduce_sum(losses) * tf.constant(scale, losses.dtype)
        total += tf.cast(functions.regularizer(*parameters)[0], losses.dtype)
    gradients = tape.gradient(total, parameters, unconnected_gradients="zero")
    replayed = used.of_batch(np.concatenate([tf.convert_to_tensor(g).numpy().reshape(-1) for g in gradients]))
    difference = float(np.linalg.norm(used.value - replayed))
    size = float(np.linalg.norm(used.value))
    if not np.isfinite(size):
        raise RefusedError(
            "The gradient of the first step is NaN or infinite: look for NaN or infinite values in the first batch, or "
            "for a "
            "loss that is not finite there. Nothing was written."
        )
    allowed = _FIRST_STEP_TOLERANCE[dtype.name] * max(size, float(np.finfo(dtype).tiny))
    if not difference <= allowed + used.rounding:
        raise RefusedError(
            f"The first step was replayed from the record, and its gradient differs from the one that Keras used by "
            f"{difference / max(size, 1e-30):.2g} of its norm (allowed: {_FIRST_STEP_TOLERANCE[dtype.name]:g}). Something "
            f"changed the step that the record does not hold: class_weight (give sample weights in the dataset instead), "
            f"a train_step or compute_loss of your own, data changed after the tap, random numbers from elsewhere "
            f"than a keras.random.SeedGenerator, or a random layer (Dropout, GaussianNoise) under jit_compile=True, where "
            f"XLA draws other numbers from the same seed: compile(..., jit_compile=False)."
        )
