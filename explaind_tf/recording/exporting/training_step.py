"""Export of the training step itself, with which recorded steps can be trained again."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.exporting.pure_functions import ModelFacts
from explaind_tf.recording.exporting.purity import refuse_unlisted
from explaind_tf.recording.exporting.saving import save_module
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.replicas import is_mirrored
from explaind_tf.runs.format.training_step import LEFT_OUT, NO_TRAINING_STEP, NO_WEIGHTED_STEP, OF_REPLICAS
from explaind_tf.runs.graphs.training_variables import TrainingVariables

# A model that overrides one of these need not heed the weights that it is given.
_OWN_STEPS = ("train_step", "compute_loss", "_compute_loss")


class _TakesNoWeightsError(RefusedError):
    """Raised for a training step that fails when it is given weights of samples."""


class TrainingStep(tf.Module):
    """Keras' own training step, together with the variables that it reads and changes.

    It is compiled exactly as Keras compiles it, including metrics. Another graph of the same mathematics would be fused
    differently, and would differ in the last bits.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    optimizer : PathOptimizer
        The model's optimizer, built.
    variables : TrainingVariables
        The variables of model and optimizer.
    form : BatchForm
        The form of a batch.
    weight_rank : int or None
        Number of axes of the weights of samples with which Keras' losses are to be weighted: the module then also has the
        function ``weighted_step``, which takes them beside the batch. With weights of 1 it may differ from ``step`` in the
        last bits, since TensorFlow optimizes the two graphs each for itself. None for ``step`` alone.

    Raises
    ------
    RefusedError
        If the step cannot be repeated from its graph alone.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: PathOptimizer,
        variables: TrainingVariables,
        form: BatchForm,
        weight_rank: int | None = None,
    ) -> None:
        super().__init__(name="training_step")
        for name, group in variables.by_group().items():
            setattr(self, name, group)
        rate = optimizer._learning_rate
        self.iterations = optimizer._iterations.value
        self.learning_rate = [rate.value] if isinstance(rate, keras.Variable) else []
        self.stepped = optimizer.stepped_buffers(model.trainable_variables)
        self.step = _traced(model, form)
        traced = [self.step]
        if weight_rank is not None:
            self.weighted_step = _traced_with_weights(model, form, weight_rank)
            traced.append(self.weighted_step)
        known = {id(variable) for variable in self.variables}
        # Metrics and the optimizer's notes. No weight depends on them, but the step writes to them.
        met = {id(variable): variable for concrete in traced for variable in concrete.graph.variables}
        self.others = [variable for key, variable in met.items() if key not in known]
        _refuse_resources(traced)
        self._graph_bytes = sum(concrete.graph.as_graph_def().ByteSize() for concrete in traced)

    @property
    def byte_count(self) -> int:
        """Approximate bytes of graphs and variables."""
        values = sum(variable.shape.num_elements() * variable.dtype.size for variable in self.variables)
        return values + self._graph_bytes

    def save(self, path: str) -> None:
        """Write the step as a SavedModel."""
        save_module(self, path)


class ExportedStep(NamedTuple):
    """What a run gets of its training step.

    Attributes
    ----------
    module : TrainingStep or None
        The step; None if steps are not to be trained again, or cannot be.
    reasons : dict of str to str
        For the manifest's environment: why the step is not there, or why it takes no weights of samples.
    is_kept : bool
        Whether the run gets it even if every step is a keyframe.
    """

    module: TrainingStep | None
    reasons: dict[str, str]
    is_kept: bool = False

    @property
    def byte_count(self) -> int:
        """Approximate bytes."""
        return 0 if self.module is None else self.module.byte_count

    def save(self, graphs_dir: Path, every: int) -> None:
        """Write the step into the folder of a run's graphs, if a run with such keyframes gets it."""
        if self.module is not None and (self.is_kept or every > 1):
            self.module.save(str(graphs_dir / constants.TRAINING_DIR))


def export_training_step(
    model: keras.Model,
    optimizer: PathOptimizer | None,
    variables: TrainingVariables,
    form: BatchForm | None,
    facts: ModelFacts,
    options: RecordingOptions,
) -> ExportedStep:
    """Return the training step as the options ask for it. A run without batches has none.

    Raises
    ------
    RefusedError
        If keyframes need the step, and it cannot be repeated from its graph alone.
    """
    if form is None or optimizer is None:  # keyframes of such a run were refused
        return ExportedStep(None, {})
    if is_mirrored(model):  # and keyframes were refused
        return ExportedStep(None, {NO_TRAINING_STEP: OF_REPLICAS})
    is_needed = options.every != 1
    if not (is_needed or options.retrain):
        return ExportedStep(None, {NO_TRAINING_STEP: LEFT_OUT})
    try:
        _refuse_eager(model)
        rank, reasons = None, {NO_WEIGHTED_STEP: LEFT_OUT}
        if options.retrain:
            rank, reasons = _rank_of_weights(model, form, facts)
        try:
            step = TrainingStep(model, optimizer, variables, form, rank)
            return ExportedStep(step, reasons, options.retrain)
        except _TakesNoWeightsError as error:
            step = TrainingStep(model, optimizer, variables, form)
            return ExportedStep(step, {NO_WEIGHTED_STEP: str(error)}, options.retrain)
    except RefusedError as error:
        if is_needed:
            raise RefusedError(f"{error} Or record every step: PathLogger(every=1).") from error
        return ExportedStep(None, {NO_TRAINING_STEP: str(error)})


def _refuse_eager(model: keras.Model) -> None:
    if model.run_eagerly:
        raise RefusedError(
            "The model was compiled with run_eagerly=True. Steps are trained again from a compiled graph, which rounds "
            "differently. Compile without run_eagerly=True."
        )


def _rank_of_weights(
    model: keras.Model, form: BatchForm, facts: ModelFacts
) -> tuple[int | None, dict[str, str]]:
    """Return the number of axes of weights that Keras multiplies all losses with, sample by sample, or why there is none.

    Data with weights of their own need no other step: their weights are multiplied.
    """
    own = [name for name in _OWN_STEPS if _overrides(model, name)]
    if own:
        return None, {
            NO_WEIGHTED_STEP: (
                f"{type(model).__name__} has a {' and a '.join(own)} of its own, which need not heed the weights of samples."
            )
        }
    if form.weights is not None:
        return None, {}
    # Keras matches ranks that differ by one.
    least, most = min(facts.loss_ranks), max(facts.loss_ranks)
    if most - least > 1:
        return None, {
            NO_WEIGHTED_STEP: (
                f"The losses have values with {least} to {most} axes, and Keras has no weights that fit all of them."
            )
        }
    return most, {}


def _overrides(model: keras.Model, name: str) -> bool:
    return name in vars(model) or getattr(type(model), name) is not getattr(keras.Model, name)


def _compiled(model: keras.Model) -> Any:
    # As in keras/src/backend/tensorflow/trainer.py::_make_function.
    return tf.function(
        tf.autograph.experimental.do_not_convert(model.train_step),
        reduce_retracing=True,
        jit_compile=model.jit_compile,
    )


def _traced(model: keras.Model, form: BatchForm) -> Any:
    one_step = _compiled(model)

    def step(*flat: tf.Tensor) -> list[tf.Tensor]:
        return tf.nest.flatten(one_step(form.pack(flat)))

    return _checked(step, form.specs)


def _traced_with_weights(model: keras.Model, form: BatchForm, rank: int) -> Any:
    one_step = _compiled(model)

    def weighted_step(*flat: tf.Tensor) -> list[tf.Tensor]:
        *batch, weights = flat
        x, y, _ = keras.utils.unpack_x_y_sample_weight(form.pack(batch))
        data = (x, y, tf.reshape(weights, (-1, *[1] * (rank - 1))))
        try:
            return tf.nest.flatten(one_step(data))
        except Exception as error:  # whatever the metrics of a user raise
            raise _TakesNoWeightsError(f"It fails with weights of samples: {error}") from error

    # In the dtype to which fit() converts weights.
    return _checked(weighted_step, [*form.specs, tf.TensorSpec((None,), keras.config.floatx())])


def _checked(function: Any, specs: Sequence[tf.TensorSpec]) -> Any:
    """Return a function as traced for these specs.

    Raises
    ------
    RefusedError
        If it holds operations that are not allowed, or cannot be traced.
    """
    try:
        concrete = tf.function(function, autograph=False).get_concrete_function(*specs)
    except RefusedError:
        raise
    except Exception as error:  # whatever a train_step raises that a training loop of one's own does not use
        raise RefusedError(
            f"The model's train_step cannot be traced, so steps could not be trained again: {type(error).__name__}: "
            f"{error}. Train with a train_step that can."
        ) from error
    refuse_unlisted("The training step", concrete)
    return concrete


def _refuse_resources(traced: Sequence[Any]) -> None:
    """Refuse functions that use more than variables, such as a table that a metric looks up.

    Raises
    ------
    RefusedError
        If one does.
    """
    for concrete in traced:
        handles = {id(variable.handle) for variable in concrete.graph.variables}
        others = [t for t in concrete.captured_inputs if t.dtype == tf.resource and id(t) not in handles]
        if others:
            raise RefusedError(
                f"The training step uses {len(others)} resources that are not variables, such as tables. They are not "
                f"recorded, so steps could not be trained again. Compile without metrics that use them."
            )
