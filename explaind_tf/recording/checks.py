"""What is refused before or at the first training step, because the ledger could not hold it."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.ring_buffer import SLOTS
from explaind_tf.recording.exporting.pure_functions import PureFunctions, training_argument
from explaind_tf.recording.observing.tap import Tap, TappedBatch
from explaind_tf.recording.observing.used_gradient import UsedGradient
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.graphs.loaded import LossFunctions

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


def check_clipping(optimizer: PathOptimizer) -> None:
    """Check that the clipping of the first step has an account.

    Raises
    ------
    RefusedError
        If ``clipvalue`` met a sparse gradient.
    """
    if optimizer.clips_slices:
        raise RefusedError(
            "The optimizer has clipvalue set and the model an Embedding, whose gradient is sparse: Keras clips each "
            "occurrence of a token by itself, so that what was clipped is no function of the batch's gradient. This version "
            "has no account of it: use clipnorm or global_clipnorm."
        )


class DataCheck:
    """Compares what reaches the training step with what the tap delivers, once, when the step is traced.

    ``fit(class_weight=...)`` adds weights behind the tap. They can be of no effect on the first gradient, so
    that the replay of the first step would not notice them.

    Parameters
    ----------
    has_weights : bool
        Whether the tap delivers sample weights.
    """

    def __init__(self, has_weights: bool) -> None:
        self._has_weights = has_weights
        self.is_armed = False  # from the first recorded step on; a function may be traced once more later

    def look(self, data: Any) -> None:
        """Refuse sample weights that the tap does not know of."""
        if not self.is_armed:
            return
        self.is_armed = False
        if keras.utils.unpack_x_y_sample_weight(data)[2] is not None and not self._has_weights:
            raise RefusedError(
                "The training step got sample weights that the tapped dataset does not have: fit() was given class_weight, "
                "or the dataset was changed after the tap. Let the tap apply them, so that they are recorded: "
                "model.fit(logger.tap(train_ds, class_weight={...}), callbacks=[logger])."
            )


def watch_data(model: keras.Model, has_weights: bool) -> DataCheck:
    """Make the model's train function anew around a look at its data. The step itself stays as it is."""
    check, step, own = DataCheck(has_weights), model.train_step, vars(model).get("train_step")

    def watched(data: Any) -> Any:
        check.look(data)
        return step(data)

    model.train_step = watched
    try:
        model.train_function = None  # one of an earlier fit would not be traced again
        model.make_train_function()
    finally:
        del model.train_step
        if own is not None:
            model.train_step = own
    return check


def check_first_step(
    functions: PureFunctions | LossFunctions,
    batch: TappedBatch,
    *,
    theta: list[np.ndarray],
    state: list[np.ndarray],
    used: UsedGradient | None,
) -> None:
    """Check that the recorded batch, replayed through the exported functions, gives Keras' own gradient.

    This catches whatever changes a step outside of what is recorded: a train_step that computes another loss,
    data changed after the tap, random numbers that are not drawn from a Keras seed generator. Where a run is gone on with,
    the functions are those that it was begun with, and the model must still be theirs.

    Raises
    ------
    RefusedError
        If the gradient that the optimizer used is not the replayed one.
    """
    if used is None:
        return
    dtype = used.value.dtype
    parameters = [tf.constant(value) for value in theta]
    samples = [*state, *batch.inputs, *batch.targets, *batch.weights]
    scales = functions.loss_scales(*parameters, *samples)[0]
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        losses = functions.sample_losses(*parameters, *samples, scales)[0]
        total = tf.reduce_sum(losses) + functions.penalty(*parameters, *state, *batch.inputs)[0]
    gradients = tape.gradient(total, parameters, unconnected_gradients="zero")
    replayed = used.expected(np.concatenate([tf.convert_to_tensor(g).numpy().reshape(-1) for g in gradients]))
    if losses.shape != (len(batch),):
        raise RefusedError(
            f"The loss has values of shape {losses.shape} for a batch of {len(batch)} samples: it cannot be split over "
            f"them. Return per-sample values of shape (batch,), as keras.losses do."
        )
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
            f"changed the step that the record does not hold: a train_step or compute_loss of your own, data changed "
            f"after the tap (weights given to fit() too: use tap(ds, class_weight=...)), random numbers from elsewhere "
            f"than a keras.random.SeedGenerator, or a random layer (Dropout, GaussianNoise) under jit_compile=True, where "
            f"XLA draws other numbers from the same seed: compile(..., jit_compile=False)."
        )
