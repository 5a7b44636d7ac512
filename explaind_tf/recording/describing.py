"""The description of a run that is being recorded, as its manifest has it."""

import platform
from typing import Any

import keras
import tensorflow as tf

from explaind_tf import constants
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.exporting.pure_functions import ModelFacts
from explaind_tf.recording.exporting.variable_specs import variable_specs
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.recording.session_state import Standing
from explaind_tf.replicas import replica_count
from explaind_tf.runs.format.description import UNKNOWN_OPTIMIZER, OptimizerSettings, RunDescription
from explaind_tf.runs.format.structure import Structure


def describe_run(
    model: keras.Model,
    optimizer: PathOptimizer | None,
    optimizer_variables: list[Any],
    standing: Standing,
    *,
    inputs: Structure = (),
    form: BatchForm | None = None,
    facts: ModelFacts | None = None,
    replicas: int = 1,
) -> RunDescription:
    """Return the description of model, optimizer and data.

    Parameters
    ----------
    model : keras.Model
        The model whose predictions are accounted for.
    optimizer : PathOptimizer or None
        Its optimizer, if its steps are known.
    optimizer_variables : list of keras.Variable
        The optimizer's variables other than its moments and accumulated gradients.
    standing : Standing
        The level of the run.
    inputs : Structure
        Structure of one input.
    form : BatchForm or None
        The form of the batches, if they are recorded.
    facts : ModelFacts or None
        What tracing showed, if the model was traced yet.
    replicas : int
        Number of replicas, each with a batch of its own in each step.
    """
    trainable = model.trainable_variables
    decayed = None if optimizer is None else optimizer.decay_mask(trainable)
    return RunDescription(
        variables=variable_specs(trainable, decayed),
        state=variable_specs(model.non_trainable_variables),
        optimizer=UNKNOWN_OPTIMIZER
        if optimizer is None
        else _settings(optimizer, 1 if form is None else replicas),
        optimizer_state=variable_specs(optimizer_variables),
        loss={} if facts is None else {"losses": list(facts.losses), "has_regularizer": facts.has_penalty},
        inputs=inputs,
        targets=() if form is None else form.targets,
        weights=None if form is None else form.weights,
        outputs=() if facts is None else facts.outputs,
        level=standing.level,
        level_reason=standing.reason,
    )


def _settings(optimizer: PathOptimizer, replicas: int) -> OptimizerSettings:
    law = optimizer.law()
    return OptimizerSettings(
        law=law.name,
        constants=law.to_config(),
        second_moment=law.divides_by_second_moment,
        # Keras averages the gradients of replicas as it does those of batches that wait for an update.
        accumulates=replicas * (optimizer.gradient_accumulation_steps or 1),
        clipvalue=optimizer.clipvalue,
        ema_momentum=float(optimizer.ema_momentum) if optimizer.use_ema else None,
    )


def environment_of(model: keras.Model) -> dict[str, Any]:
    """Return versions, devices and mode of execution."""
    return {
        "explaind_tf": constants.VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "devices": sorted({device.device_type for device in tf.config.list_logical_devices()}),
        "jit_compile": bool(model.jit_compile),
        "run_eagerly": bool(model.run_eagerly),
        "replicas": replica_count(model),
    }
