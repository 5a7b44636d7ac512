"""Export of a compiled Keras model as pure functions of flat lists of tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.exporting.exported_gradients import with_own_gradients, without_gradients
from explaind_tf.recording.exporting.losses import LossPart, have_tokens, loss_parts
from explaind_tf.recording.exporting.pruned import pruned
from explaind_tf.recording.exporting.purity import (
    LAYER_METRICS,
    refuse_impure,
    refuse_unlisted,
    refuse_without_derivative,
)
from explaind_tf.recording.exporting.saving import save_module
from explaind_tf.replicas import replica_count, rounded_average
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Structure
from explaind_tf.runs.graphs.graph_files import (
    CUSTOM_GRADIENTS,
    FORWARD,
    LOSS_SCALES,
    PENALTY,
    SAMPLE_LOSSES,
    TOKEN_LOSSES,
)


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that tracing shows.

    Attributes
    ----------
    outputs : Structure
        Structure of the model's output for one input.
    losses : tuple of dict
        Name and reduction of each compiled loss.
    has_penalty : bool
        Whether anything is added to the losses: regularisers of weights, or ``model.losses`` of a batch.
    loss_ranks : tuple of int
        Number of axes of the values of each loss: 1 for one value for each sample.
    """

    outputs: Structure
    losses: tuple[dict[str, str], ...]
    has_penalty: bool
    loss_ranks: tuple[int, ...] = ()


class PureFunctions(tf.Module):
    """A model's forward pass, per-sample losses and penalties as functions of its variables.

    It holds them as they were traced: TensorFlow would trace a ``tf.function`` once more when it saves it.

    Parameters
    ----------
    functions : dict
        Functions by the names of :class:`explaind_tf.runs.graphs.loaded.Graphs`, each a ``tf.function`` of one signature.
        The token losses are included only if the losses have values for positions.
    gradients : dict
        The custom gradients of losses and penalties, by name.
    facts : ModelFacts
        Other facts about the model.
    """

    forward: Any
    sample_losses: Any
    loss_scales: Any
    penalty: Any

    def __init__(self, functions: dict[str, Any], gradients: dict[str, Any], facts: ModelFacts) -> None:
        super().__init__(name="pure_functions")
        self.facts = facts
        if gradients:
            setattr(self, CUSTOM_GRADIENTS, gradients)
        for name, function in functions.items():
            setattr(self, name, function.get_concrete_function())

    @property
    def byte_count(self) -> int:
        """Approximate bytes of the functions."""
        names = (FORWARD, SAMPLE_LOSSES, LOSS_SCALES, PENALTY)
        found = [getattr(self, name) for name in names if hasattr(self, name)]
        return sum(f.graph.as_graph_def().ByteSize() for f in found)

    def save(self, path: str) -> None:
        """Write the functions as a SavedModel."""
        save_module(self, path)


def pure_functions(
    model: keras.Model, inputs: Structure, targets: Structure, weights: Structure | None
) -> PureFunctions:
    """Trace a model as pure functions.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    inputs, targets : Structure
        Structure of one sample.
    weights : Structure or None
        Structure of the dataset's sample weights, None if it has none.

    Raises
    ------
    RefusedError
        If something in the model cannot be replayed or split over samples.
    """
    forward, outputs = traced_forward(model, inputs)
    bodies = _Bodies(model, inputs, targets, weights)
    points = [*bodies.parameters, *bodies.state, *bodies.inputs]
    samples = [*points, *bodies.targets, *bodies.weights]
    sample_losses, found = _trace(SAMPLE_LOSSES, bodies.sample_losses, [*samples, bodies.scales])
    loss_scales = _trace(LOSS_SCALES, bodies.loss_scales, samples).function
    has_batch_penalty = found.penalties > bodies.regularized
    penalty_body = bodies.batch_penalty if has_batch_penalty else bodies.weight_penalty
    penalty = _trace(PENALTY, penalty_body, points).function
    of_losses = {SAMPLE_LOSSES: sample_losses, LOSS_SCALES: loss_scales, PENALTY: penalty}
    if found.has_tokens:
        of_losses[TOKEN_LOSSES] = _trace(
            TOKEN_LOSSES, bodies.token_losses, [*samples, bodies.scales]
        ).function
    gradients: dict[str, Any] = {}
    for name, function in of_losses.items():
        refuse_unlisted(f"The model's {name}", function.get_concrete_function())
        refuse_impure(name, function)
        of_losses[name], own = with_own_gradients(name, function, bodies.variables)
        for gradient in own.values():
            refuse_unlisted(f"A custom gradient in the model's {name}", gradient)
        gradients |= own
    has_penalty = has_batch_penalty or bodies.regularized > 0
    facts = ModelFacts(outputs, found.losses, has_penalty, found.ranks)
    return PureFunctions({FORWARD: without_gradients(forward)} | of_losses, gradients, facts)


def forward_function(model: keras.Model, inputs: Structure) -> PureFunctions:
    """Trace only the forward pass of a model, whose losses are not known by sample.

    Parameters
    ----------
    model : keras.Model
        Built.
    inputs : Structure
        Structure of one input.

    Raises
    ------
    RefusedError
        If the pass depends on variables that are not the model's, or cannot be differentiated.
    """
    forward = traced_forward(model, inputs)
    facts = ModelFacts(forward.outputs, (), has_penalty=False)
    return PureFunctions({FORWARD: without_gradients(forward.function)}, {}, facts)


@dataclass(frozen=True)
class _LossFacts:
    """Facts about the losses of a batch that tracing shows.

    Attributes
    ----------
    losses : tuple of dict
        Name and reduction of each.
    has_tokens : bool
        Whether the losses have values for the positions of a sample.
    penalties : int
        Number of penalties that the model adds to the losses.
    ranks : tuple of int
        Number of axes of the values of each loss.
    """

    losses: tuple[dict[str, str], ...]
    has_tokens: bool
    penalties: int
    ranks: tuple[int, ...]


class _BatchLosses(NamedTuple):
    """The compiled losses of a batch, the state after the forward pass, and the number of penalties."""

    terms: list[LossPart]
    state: list[tf.Tensor]
    penalties: int


class _Bodies:
    """The Python functions that are traced, with flat tensors as arguments, and their signatures.

    Attributes
    ----------
    variables : list of keras.Variable
        The model's variables.
    parameters, state, inputs, targets, weights : list of tf.TensorSpec
        Specs of the arguments, in this order.
    scales : tf.TensorSpec
        Spec of the last argument of the losses.
    regularized : int
        Number of trainable variables with a regulariser.
    """

    def __init__(
        self, model: keras.Model, inputs: Structure, targets: Structure, weights: Structure | None
    ) -> None:
        self._model = model
        self._structures = inputs, targets, weights
        self._dtype = tf.dtypes.as_dtype(model.trainable_variables[0].dtype)
        self.variables = [*model.trainable_variables, *model.non_trainable_variables]
        self.parameters = [_variable_spec(v) for v in model.trainable_variables]
        self.state = [_variable_spec(v) for v in model.non_trainable_variables]
        self.inputs, self.targets, self.weights = (
            [] if part is None else [_batch_spec(leaf) for leaf in struct.leaves(part)]
            for part in self._structures
        )
        self.scales = tf.TensorSpec((None,), self._dtype)
        self.regularized = sum(v.regularizer is not None for v in model.trainable_variables)

    def _split(self, flat: tuple[tf.Tensor, ...]) -> list[list[tf.Tensor]]:
        """Return parameters, state, inputs, targets and weights."""
        specs = (self.parameters, self.state, self.inputs, self.targets, self.weights)
        return _split(flat, tuple(len(part) for part in specs))

    def _losses(self, flat: tuple[tf.Tensor, ...]) -> _BatchLosses:
        inputs, targets, weights = self._structures
        p, u, x, y, w = self._split(flat)
        outputs, new_state, penalties = _call(self._model, p, u, struct.pack(inputs, x), training=True)
        sample_weight = None if weights is None else struct.pack(weights, w)
        batch_size = tf.shape(x[0])[0]
        terms = loss_parts(self._model, struct.pack(targets, y), outputs, sample_weight, batch_size)
        return _BatchLosses(terms, new_state, len(penalties))

    def _total(self, values: list[tf.Tensor], scales: tf.Tensor) -> tf.Tensor:
        return tf.add_n([tf.cast(v * tf.cast(scales[i], v.dtype), self._dtype) for i, v in enumerate(values)])

    def sample_losses(self, *flat: tf.Tensor) -> tuple[list[tf.Tensor], _LossFacts]:
        found = self._losses(flat)
        facts = _LossFacts(
            losses=tuple({"name": term.name, "reduction": term.reduction} for term in found.terms),
            has_tokens=have_tokens(found.terms),
            penalties=found.penalties,
            ranks=tuple(term.values.shape.rank for term in found.terms),
        )
        return [self._total([term.of_samples for term in found.terms], flat[-1]), *found.state], facts

    def token_losses(self, *flat: tf.Tensor) -> tuple[list[tf.Tensor], None]:
        return [self._total([term.of_tokens for term in self._losses(flat).terms], flat[-1])], None

    def loss_scales(self, *flat: tf.Tensor) -> tuple[list[tf.Tensor], None]:
        return [tf.stack([tf.cast(term.scale, self._dtype) for term in self._losses(flat).terms])], None

    def batch_penalty(self, *flat: tf.Tensor) -> tuple[list[tf.Tensor], None]:
        p, u, x, *_ = self._split(flat)
        inputs, *_ = self._structures
        return self._sum(_call(self._model, p, u, struct.pack(inputs, x), training=True)[2])

    def weight_penalty(self, *flat: tf.Tensor) -> tuple[list[tf.Tensor], None]:
        values = flat[: len(self.parameters)]
        return self._sum(
            [
                variable.regularizer(value)
                for variable, value in zip(self._model.trainable_variables, values, strict=True)
                if variable.regularizer is not None
            ]
        )

    def _sum(self, penalties: list[tf.Tensor]) -> tuple[list[tf.Tensor], None]:
        replicas = replica_count(self._model)
        # Within the scope of a strategy, where this may run, Keras divides them by the number of replicas.
        is_divided = tf.distribute.get_strategy().num_replicas_in_sync > 1
        factor = replicas if is_divided else rounded_average(replicas)
        whole = [self._model._aggregate_additional_loss(part) for part in penalties]
        whole = whole if replicas == 1 else [part * factor for part in whole]
        summed = [tf.cast(part, self._dtype) for part in whole]
        return [tf.add_n(summed) if summed else tf.zeros((), self._dtype)], None


class TracedForward(NamedTuple):
    """The forward pass in inference mode, and the structure of its output.

    Attributes
    ----------
    function : tf.function
        A function of one signature, ``(*trainable, *non_trainable, *inputs) -> [*outputs]``.
    outputs : Structure
        Structure of the output for one input.
    """

    function: Any
    outputs: Structure


def traced_forward(model: keras.Model, inputs: Structure) -> TracedForward:
    """Trace the forward pass in inference mode.

    Parameters
    ----------
    model : keras.Model
        Built.
    inputs : Structure
        Structure of one input.

    Raises
    ------
    RefusedError
        If the pass depends on variables that are not the model's, or cannot be differentiated.
    """
    parameters = [_variable_spec(v) for v in model.trainable_variables]
    state = [_variable_spec(v) for v in model.non_trainable_variables]
    x_specs = [_batch_spec(leaf) for leaf in struct.leaves(inputs)]
    counts = (len(parameters), len(state), len(x_specs))

    def forward(*flat: tf.Tensor) -> tuple[list[tf.Tensor], Structure]:
        p, u, x = _split(flat, counts)
        outputs, _, _ = _call(model, p, u, struct.pack(inputs, x), training=False)
        structure = _output_structure(outputs)
        values = struct.flatten(structure, outputs, "")
        return [tf.convert_to_tensor(value) for _, _, value in values], structure

    found = _trace(FORWARD, forward, [*parameters, *state, *x_specs])
    refuse_unlisted(f"The model's {FORWARD}", found.function.get_concrete_function())
    traced = TracedForward(pruned(found.function), found.found)
    refuse_impure(FORWARD, traced.function)
    refuse_without_derivative(traced.function, len(parameters) + len(state))
    return traced


def training_argument(model: keras.Model, training: bool) -> dict[str, bool]:
    """Return the argument with which Keras' trainer calls the model, empty if ``call()`` does not take it."""
    return {"training": training} if model._call_has_training_arg else {}


def _call(
    model: keras.Model, p: list[tf.Tensor], u: list[tf.Tensor], x: Any, *, training: bool
) -> tuple[Any, list[tf.Tensor], list[tf.Tensor]]:
    """Return outputs, new state and ``model.losses``, with the variables' values replaced by ``p`` and ``u``.

    The model is called as the trainer calls it. ``stateless_call`` would call ``call`` directly, and leave out what
    ``__call__`` adds: casts of the inputs, masks of the outputs, the model's own activity regulariser.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    mapping = list(zip(variables, [*p, *u], strict=True))
    if training:
        # Metrics within layers are updated, but losses may not depend on them.
        with tf.name_scope(LAYER_METRICS):
            mapping += [(v, tf.zeros(v.shape, v.dtype)) for v in _metrics_of_layers(model)]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        outputs = model(x, **training_argument(model, training))
        penalties = list(model.losses)
    state = [tf.convert_to_tensor(scope.get_current_value(v)) for v in model.non_trainable_variables]
    return outputs, state, penalties


def _metrics_of_layers(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of metrics that layers of the model update when they are called."""
    layers = model._flatten_layers(include_self=False)
    return [v for layer in layers for metric in layer._metrics for v in metric.variables]


class _Traced(NamedTuple):
    """A function of one signature, and the facts that its Python returned while it was traced."""

    function: Any
    found: Any


def _trace(
    name: str, body: Callable[..., tuple[list[tf.Tensor], Any]], specs: list[tf.TensorSpec]
) -> _Traced:
    """Trace a Python function that returns tensors, together with facts about them."""
    named = [tf.TensorSpec(spec.shape, spec.dtype, f"argument_{i}") for i, spec in enumerate(specs)]
    found: list[Any] = []

    def tensors(*flat: tf.Tensor) -> list[tf.Tensor]:
        values, facts = body(*flat)
        found.append(facts)
        return values

    tensors.__name__ = name  # its name in the SavedModel
    traced = tf.function(tensors, input_signature=named, autograph=False)
    traced.get_concrete_function()
    return _Traced(traced, found[-1])


def _variable_spec(variable: Any) -> tf.TensorSpec:
    return tf.TensorSpec(variable.shape, variable.dtype)


def _batch_spec(leaf: struct.Leaf) -> tf.TensorSpec:
    return tf.TensorSpec((None, *leaf.shape), leaf.dtype)


def _split(flat: tuple[tf.Tensor, ...], counts: tuple[int, ...]) -> list[list[tf.Tensor]]:
    values = iter(flat)
    return [[value for _, value in zip(range(count), values, strict=False)] for count in counts]


def _output_structure(outputs: Any) -> Structure:
    if isinstance(outputs, dict) and all(isinstance(key, str) for key in outputs):
        return {key: _output_structure(outputs[key]) for key in sorted(outputs)}
    if type(outputs) in (list, tuple):
        return type(outputs)(_output_structure(part) for part in outputs)
    if not tf.is_tensor(outputs) or not outputs.shape.rank:
        found = f"a tensor of shape {outputs.shape}" if tf.is_tensor(outputs) else type(outputs).__name__
        raise RefusedError(
            f"The model returns {found} among its outputs. Return tensors of shape (batch, ...), alone or in lists, "
            f"tuples and dicts with strings as keys."
        )
    return struct.Leaf(outputs.dtype.name, tuple(outputs.shape[1:]))
