"""Checks before and at the first training step: what the ledger could not account for is refused."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.laws.used_gradients import Arithmetic, StepGradient, find_mismatch, measured_rounding
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.ring_buffer import SLOTS
from explaind_tf.recording.exporting.pure_functions import PureFunctions, training_argument
from explaind_tf.recording.observing.batches import BatchForm, StepBatch
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.graphs.loaded import LossFunctions
from explaind_tf.runs.graphs.precision import eps_of


def check_fit(model: keras.Model, options: RecordingOptions, params: dict[str, Any]) -> PathOptimizer:
    """Check model and optimizer before training, and return the optimizer.

    Raises
    ------
    RefusedError
        If the training cannot be recorded. The message says what was found, what is needed and what to write instead.
    """
    optimizer = stepped_optimizer(model)
    if not isinstance(optimizer, PathOptimizer):
        raise RefusedError(
            f"The model was compiled with {type(optimizer).__module__}.{type(optimizer).__name__}. The ledger needs "
            f"an optimizer that records what it used in each step: compile with "
            f"explaind_tf.PathAdamW(...) or explaind_tf.PathSGD(...). They take the arguments of keras.optimizers.AdamW "
            f"and SGD, and give the same weights."
        )
    if params.get("steps") is None and options.every != 1:
        raise RefusedError(
            f"The number of batches of an epoch is not known (as after filter() or from_generator()), and fit() got no "
            f"steps_per_epoch. Keras then counts one more step, without data, at the end of an epoch. With "
            f"every={options.every!r}, that step could not be trained again. Give the number of batches, "
            f"fit(..., steps_per_epoch=n), or record every step: PathLogger(every=1)."
        )
    if model.steps_per_execution > SLOTS:
        raise RefusedError(
            f"The model was compiled with steps_per_execution={model.steps_per_execution}. The steps of one execution are "
            f"kept in memory until it ends, at most {SLOTS} of them. Use compile(..., steps_per_execution={SLOTS}) or less."
        )
    if optimizer is not model.optimizer and model.steps_per_execution > 1:
        raise RefusedError(
            f"The model was compiled with steps_per_execution={model.steps_per_execution} and a LossScaleOptimizer, which "
            f"may skip steps. Which of several it skipped is not known. Use compile(..., steps_per_execution=1)."
        )
    if tf.distribute.has_strategy() or model.distribute_strategy.num_replicas_in_sync > 1:
        raise RefusedError(
            "Training under a tf.distribute strategy cannot be recorded by this version. Build, compile and fit the model "
            "outside of the strategy's scope."
        )
    return optimizer


def stepped_optimizer(model: keras.Model) -> Any:
    """Return the optimizer that updates the weights: that within a LossScaleOptimizer, if the loss is scaled.

    Keras wraps the optimizer into one under the mixed_float16 policy.
    """
    optimizer = model.optimizer
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    return optimizer.inner_optimizer if is_scaled else optimizer


def build_model(model: keras.Model, form: BatchForm) -> None:
    """Create the variables of a model that Keras would build on its first call. The model is not run."""
    if model.built:
        return
    symbolic = struct.map_leaves(
        form.inputs, lambda leaf: keras.KerasTensor((None, *leaf.shape), dtype=leaf.dtype)
    )
    model(symbolic, **training_argument(model, False))


def check_variables(model: keras.Model) -> None:
    """Check that all trainable variables have one floating dtype. Layers may compute in another one."""
    dtypes = {variable.dtype for variable in model.trainable_variables}
    if not dtypes:
        raise RefusedError(
            "The model has no trainable variables, so there is nothing to account for. Set trainable=True for the layers "
            "that are trained."
        )
    if len(dtypes) > 1 or not dtypes <= {"float32", "float64"}:
        raise RefusedError(
            f"The trainable variables have the dtypes {sorted(dtypes)}; this version needs all float32 or all float64. For "
            f"layers that compute in low precision, use a policy with float32 weights: mixed_bfloat16 or mixed_float16."
        )


def check_built_for(optimizer: PathOptimizer, model: keras.Model) -> None:
    """Check that an optimizer was not built for the variables of another model."""
    unknown = [v.path for v in model.trainable_variables if optimizer.built and not optimizer.knows(v)]
    if unknown:
        raise RefusedError(
            f"The optimizer was built before, for other variables: it does not know {', '.join(unknown[:3])}. An optimizer "
            f"holds the moments of one model. Compile each model with an optimizer of its own, and compile again with a new "
            f"one after layers became trainable: model.compile({type(optimizer).__name__}(...), ...)."
        )


def arithmetic_of(model: keras.Model) -> Arithmetic:
    """Return the numbers that the training of a model computes with."""
    names = {layer.compute_dtype for layer in model._flatten_layers()} - {None}
    layers = [dtype for dtype in map(tf.dtypes.as_dtype, names) if dtype.is_floating]
    weights_eps = eps_of(tf.dtypes.as_dtype(model.trainable_variables[0].dtype))
    coarsest = max([weights_eps, *map(eps_of, layers)])
    return Arithmetic.of(weights_eps, coarsest, with_xla=bool(model.jit_compile))


def check_clipping(optimizer: PathOptimizer) -> None:
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


def check_first_step(
    functions: PureFunctions | LossFunctions,
    batch: StepBatch,
    *,
    theta: list[np.ndarray],
    paths: list[str],
    state: list[np.ndarray],
    found: StepGradient | None,
    loss_scale: float,
    arithmetic: Arithmetic,
) -> None:
    """Check that the recorded batch, replayed through the exported functions, gives Keras' own gradient.

    ``theta`` and ``paths`` are values and paths of the trainable variables. ``loss_scale`` is that of the step,
    ``arithmetic`` says what numbers the training computes with.

    This detects everything that changes a step but is not recorded: a train_step that computes another loss, random numbers
    that do not come from a Keras seed generator. When a run is resumed, the functions are those of its recording, and the
    model must still compute the same.

    Raises
    ------
    RefusedError
        If the gradient that the optimizer used is not the replayed one, up to rounding.
    """
    if found is None:
        return
    replay = _Replay(functions, batch, theta, state, loss_scale)
    loss_shape = replay.loss_shape()
    if loss_shape != (len(batch),):
        raise RefusedError(
            f"The loss has values of shape {loss_shape} for a batch of {len(batch)} samples, so it cannot be split over the "
            f"samples. Return per-sample values of shape (batch,), as keras.losses do."
        )
    if not np.isfinite(found.used.value).all():
        raise RefusedError(
            "The gradient of the first step is NaN or infinite. Look for NaN or infinite values in the first batch, or "
            "for a loss that is not finite there. Nothing was written."
        )
    mismatch = find_mismatch(
        found.used,
        found.preparation(replay.gradient() + found.waiting),
        [value.size for value in theta],
        lambda: found.preparation.scaled(replay.rounding(arithmetic)),
    )
    if mismatch is not None:
        raise RefusedError(
            f"The first step was replayed from the record, and its gradient is not the one that Keras used: for "
            f"{paths[mismatch.variable]!r} they differ by {mismatch.difference:.2g}, and rounding explains "
            f"{mismatch.allowed:.2g} (Euclidean norms). Something that is not recorded changed the step. Possible causes: a "
            f"train_step or compute_loss of your own; random numbers that are not from a keras.random.SeedGenerator; a "
            f"random layer (Dropout, GaussianNoise) under jit_compile=True, where XLA draws other numbers from the same seed "
            f"(use compile(..., jit_compile=False)); a custom gradient within a loop, a branch or a tf.function; or, when a "
            f"run is resumed, a model that does not compute what the recorded one did."
        )


class _Replay:
    """The first batch, computed again from exported functions.

    Parameters
    ----------
    functions : PureFunctions or LossFunctions
        The functions.
    batch : StepBatch
        The batch.
    theta, state : list of np.ndarray
        Values of the variables.
    loss_scale : float
        What the loss is multiplied by before its gradient is taken.
    """

    def __init__(
        self,
        functions: PureFunctions | LossFunctions,
        batch: StepBatch,
        theta: list[np.ndarray],
        state: list[np.ndarray],
        loss_scale: float,
    ) -> None:
        self._functions, self._theta, self._count = functions, theta, len(batch)
        self._loss_scale = loss_scale
        self._inputs = [*state, *batch.inputs]
        self._samples = [*self._inputs, *batch.targets, *batch.weights]
        self._scales = functions.loss_scales(*theta, *self._samples)[0]

    def loss_shape(self) -> tuple[int, ...]:
        """Return the shape of the losses: (batch,) if they can be split over samples."""
        return tuple(self._functions.sample_losses(*self._theta, *self._samples, self._scales)[0].shape)

    def gradient(
        self, of_weights: np.ndarray | None = None, of_samples: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the gradient of losses and penalties, shape (D,), for factors of weights (D,) and losses (batch,)."""
        theta = self._theta
        if of_weights is not None:
            pieces = np.split(of_weights, np.cumsum([value.size for value in theta])[:-1])
            theta = [v * p.reshape(v.shape).astype(v.dtype) for v, p in zip(theta, pieces, strict=True)]
        parameters = [tf.constant(value) for value in theta]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            losses = self._functions.sample_losses(*parameters, *self._samples, self._scales)[0]
            if of_samples is not None:
                losses = losses * tf.constant(of_samples, losses.dtype)
            total = tf.reduce_sum(losses) + self._functions.penalty(*parameters, *self._inputs)[0]
            total = total * tf.constant(self._loss_scale, total.dtype)
        gradients = tape.gradient(total, parameters, unconnected_gradients="zero")
        flat = np.concatenate([tf.convert_to_tensor(g).numpy().reshape(-1) for g in gradients])
        return flat / flat.dtype.type(self._loss_scale)

    def rounding(self, arithmetic: Arithmetic) -> np.ndarray:
        """Return how far rounding may change the gradient, shape (D,)."""
        size = sum(value.size for value in self._theta)
        return arithmetic.gamma * measured_rounding(self.gradient, self._count, size, 0, arithmetic.eps)
