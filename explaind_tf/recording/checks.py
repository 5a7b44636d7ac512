"""Checks before and at the first training step: what the ledger could not account for is refused."""

from typing import Any

import keras
import tensorflow as tf

from explaind_tf import optimizers
from explaind_tf.errors import RefusedError
from explaind_tf.levels import CAUSE, PATH, SAMPLE
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.optimizers.ring_buffer import SLOTS
from explaind_tf.recording.exporting.pure_functions import training_argument
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.recording.replica_checks import check_replicas, clipping_of_replicas
from explaind_tf.recording.session_state import Standing
from explaind_tf.replicas import is_mirrored, replica_count
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format import structure as struct


def check_fit(model: keras.Model, options: RecordingOptions, params: dict[str, Any]) -> None:
    """Check model and optimizer before training.

    Raises
    ------
    RefusedError
        If the training cannot be recorded. The message says what was found, what is needed and what to write instead.
    """
    optimizer = stepped_optimizer(model)
    if model.steps_per_execution > 1 and (
        options.model not in (None, model) or not isinstance(optimizer, PathOptimizer)
    ):
        raise RefusedError(
            f"The model was compiled with steps_per_execution={model.steps_per_execution} and {_name_of(optimizer)}. Only "
            f"optimizers of explaind_tf, such as xtf.PathAdamW, note each step of an execution. Use "
            f"compile(..., steps_per_execution=1)."
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
    if tf.distribute.has_strategy() or is_mirrored(model):
        check_replicas(model, options)


def check_loop(model: keras.Model) -> None:
    """Check that a training loop of the user's own does not train under a strategy.

    Raises
    ------
    RefusedError
        If it does.
    """
    if tf.distribute.has_strategy() or is_mirrored(model):
        raise RefusedError(
            "A training loop of one's own under a tf.distribute strategy cannot be recorded. Train with model.fit(..., "
            "callbacks=[logger]) there, or on one device."
        )


def _name_of(optimizer: Any) -> str:
    return "no optimizer" if optimizer is None else f"{type(optimizer).__module__}.{type(optimizer).__name__}"


def _counterpart_of(optimizer: Any) -> str:
    """Return what to compile with instead of an optimizer, in words."""
    name = type(optimizer).__name__
    if type(optimizer) is getattr(keras.optimizers, name, None) and f"Path{name}" in optimizers.__all__:
        return (
            f"compile with explaind_tf.Path{name}(...). It takes the arguments of keras.optimizers.{name}, and gives the "
            f"same weights."
        )
    ours = [found for found in optimizers.__all__ if found.startswith("Path") and found != "PathOptimizer"]
    return (
        f"compile with one of explaind_tf ({', '.join(ours)}). Each takes the arguments of the Keras optimizer of its name, "
        f"and gives the same weights."
    )


def known_optimizer(fitted: keras.Model, model: keras.Model) -> PathOptimizer | None:
    """Return the optimizer of a model, if it notes its steps and steps all of the model that is fitted."""
    optimizer = stepped_optimizer(fitted)
    return optimizer if model is fitted and isinstance(optimizer, PathOptimizer) else None


def standing_of(
    fitted: keras.Model,
    optimizer: PathOptimizer | None,
    options: RecordingOptions,
    resumed: RecordedRun | None,
) -> Standing:
    """Return the level at which a recording begins, which is the highest that optimizer and options allow.

    Raises
    ------
    RefusedError
        If more is required.
    """
    if resumed is not None and resumed.level == PATH:
        raise RefusedError(
            f"{resumed.run_dir} has the level {PATH!r}: it does not hold the state of the optimizer, so its training cannot "
            f"go on from there. Record into another directory."
        )
    if resumed is not None:
        return Standing(resumed.level, options.require or resumed.level, resumed.manifest.level_reason)
    if optimizer is not None:
        standing = Standing(SAMPLE, options.require or SAMPLE)
        clipping = clipping_of_replicas(optimizer) if replica_count(fitted) > 1 else None
        if clipping is not None:
            standing.lower_to(CAUSE, RefusedError(clipping))
        return standing
    standing = Standing(SAMPLE, options.require or PATH)
    if options.model not in (None, fitted):
        found = "Only a part of the fitted model is accounted for, so what moved its weights is not known."
    else:
        found = (
            f"The model was compiled with {_name_of(stepped_optimizer(fitted))}. To know causes and samples takes an "
            f"optimizer that notes what it used in each step: {_counterpart_of(stepped_optimizer(fitted))}"
        )
    standing.lower_to(PATH, RefusedError(found))
    return standing


def stepped_optimizer(model: keras.Model) -> Any:
    """Return the optimizer that updates the weights: that within a LossScaleOptimizer, if the loss is scaled.

    Keras wraps the optimizer into one under the mixed_float16 policy.
    """
    optimizer: Any = getattr(model, "optimizer", None)  # a model that was not compiled has none
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


def check_call(model: keras.Model) -> None:
    """Check that a model makes predictions."""
    if type(model).call is keras.Model.call:
        raise RefusedError(
            f"The model {type(model).__name__} has no call(), so it makes no predictions that could be accounted for. Say "
            f"which part of it does, such as the generator of a GAN: PathLogger(run_dir, model=gan.generator)."
        )


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


def check_moving(model: keras.Model, options: RecordingOptions) -> None:
    """Check that training moves no other variables than those that the user named.

    Raises
    ------
    RefusedError
        If it does. A ledger without what they did would not add up.
    """
    others = [v.path for v in model.trainable_variables if not options.may_move(v.path)]
    if others:
        count = len(model.trainable_variables)
        raise RefusedError(
            f"PathLogger(variables=...) leaves out {len(others)} of the {count} trainable variables: "
            f"{', '.join(others[:3])}{' …' if len(others) > 3 else ''}. Training moves them, so each step of theirs must be "
            f"recorded. Freeze them (layer.trainable = False) and compile again, or name them in variables, too."
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
