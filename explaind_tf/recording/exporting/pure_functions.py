"""Export of a compiled Keras model as pure functions of flat lists of tensors."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.recording.exporting.losses import Term, have_tokens, loss_terms
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.manifest import VariableSpec
from explaind_tf.runs.format.structure import Structure
from explaind_tf.runs.graphs.loaded import (
    FORWARD,
    LOSS_SCALES,
    PENALTY,
    SAMPLE_LOSSES,
    TOKEN_LOSSES,
    has_calls,
)


@dataclass
class Found:
    """What tracing found out about a model (tf.Module would wrap a dict).

    Attributes
    ----------
    outputs : Structure
        What the model returns for one input.
    losses : list of dict
        Name and reduction of each compiled loss.
    has_batch_penalty : bool
        Whether ``model.losses`` holds more than the regularisers of weights.
    has_tokens : bool
        Whether the losses have values for the positions of a sample.
    """

    outputs: Structure = ()
    losses: list[dict[str, str]] = field(default_factory=list)
    has_batch_penalty: bool = False
    has_tokens: bool = False


class PureFunctions(tf.Module):
    """A model's forward pass, per-sample losses and penalties as functions of its variables.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    inputs, targets : Structure
        What one sample looks like.
    weights : Structure or None
        What the dataset gives as sample weights, if it does.

    Raises
    ------
    RefusedError
        If something about the model cannot be replayed or split over samples.
    """

    def __init__(
        self, model: keras.Model, inputs: Structure, targets: Structure, weights: Structure | None
    ) -> None:
        super().__init__(name="pure_functions")
        dtype = tf.dtypes.as_dtype(model.trainable_variables[0].dtype)
        parameters = [_variable_spec(v) for v in model.trainable_variables]
        state = [_variable_spec(v) for v in model.non_trainable_variables]
        x_specs, y_specs, w_specs = (
            [] if part is None else [_batch_spec(leaf) for leaf in struct.leaves(part)]
            for part in (inputs, targets, weights)
        )
        scale_spec = tf.TensorSpec((None,), dtype)
        counts = tuple(len(specs) for specs in (parameters, state, x_specs, y_specs, w_specs, [scale_spec]))
        self.found = found = Found()

        def terms(flat: tuple[tf.Tensor, ...]) -> tuple[list[Term], list[tf.Tensor]]:
            p, u, x, y, w, _ = _split(flat, counts)
            outputs, new_state, penalties = _call(model, p, u, struct.pack(inputs, x), training=True)
            from_weights = sum(v.regularizer is not None for v in model.trainable_variables)
            found.has_batch_penalty = len(penalties) > from_weights
            sample_weight = None if weights is None else struct.pack(weights, w)
            batch_size = tf.shape(x[0])[0]
            return loss_terms(model, struct.pack(targets, y), outputs, sample_weight, batch_size), new_state

        def total(values: list[tf.Tensor], scales: tf.Tensor) -> tf.Tensor:
            return tf.add_n([tf.cast(v * tf.cast(scales[i], v.dtype), dtype) for i, v in enumerate(values)])

        def sample_losses(*flat: tf.Tensor) -> list[tf.Tensor]:
            parts, new_state = terms(flat)
            found.losses = [{"name": part.name, "reduction": part.reduction} for part in parts]
            found.has_tokens = have_tokens(parts)
            return [total([part.of_samples for part in parts], flat[-1]), *new_state]

        def token_losses(*flat: tf.Tensor) -> list[tf.Tensor]:
            return [total([part.of_tokens for part in terms(flat)[0]], flat[-1])]

        def loss_scales(*flat: tf.Tensor) -> list[tf.Tensor]:
            return [tf.stack([tf.cast(part.scale, dtype) for part in terms(flat)[0]])]

        def penalty(*flat: tf.Tensor) -> list[tf.Tensor]:
            p, u, x, *_ = _split(flat, counts)
            if found.has_batch_penalty:
                penalties = _call(model, p, u, struct.pack(inputs, x), training=True)[2]
            else:
                penalties = [
                    variable.regularizer(value)
                    for variable, value in zip(model.trainable_variables, p, strict=True)
                    if variable.regularizer is not None
                ]
            summed = [tf.cast(model._aggregate_additional_loss(part), dtype) for part in penalties]
            return [tf.add_n(summed) if summed else tf.zeros((), dtype)]

        samples = [*parameters, *state, *x_specs, *y_specs, *w_specs]
        self.forward, found.outputs = traced_forward(model, inputs)
        self.sample_losses = _trace(sample_losses, [*samples, scale_spec])
        self.loss_scales = _trace(loss_scales, samples)
        self.penalty = _trace(penalty, [*parameters, *state, *x_specs])
        if found.has_tokens:
            self.token_losses = _trace(token_losses, [*samples, scale_spec])
        optional = [TOKEN_LOSSES] if found.has_tokens else []
        for name in (SAMPLE_LOSSES, LOSS_SCALES, PENALTY, *optional):
            _refuse_impure(name, getattr(self, name))
        from_weights = any(v.regularizer is not None for v in model.trainable_variables)
        self.has_penalty = found.has_batch_penalty or from_weights

    @property
    def byte_count(self) -> int:
        """Bytes of the functions, about."""
        found = [self.forward, self.sample_losses, self.loss_scales, self.penalty]
        return sum(f.get_concrete_function().graph.as_graph_def().ByteSize() for f in found)

    def save(self, path: str) -> None:
        """Write the functions as a SavedModel."""
        save_module(self, path)


def save_module(module: tf.Module, path: str) -> None:
    """Write a module as a SavedModel."""
    with warnings.catch_warnings():
        # Raised inside TensorFlow while it copies functions; nothing a user could change.
        warnings.simplefilter("ignore")
        tf.saved_model.save(module, path)


def variable_specs(variables: list[Any], decayed: list[bool] | None = None) -> tuple[VariableSpec, ...]:
    """Return the path, shape and dtype of variables, and whether they decay."""
    flags = decayed if decayed is not None else [False] * len(variables)
    taken: dict[str, int] = {}
    specs = []
    for variable, decay in zip(variables, flags, strict=True):
        # Two layers of one name give two variables of one path; ledgers need to tell them apart.
        count = taken[variable.path] = taken.get(variable.path, 0) + 1
        layer, name = variable.path.rsplit("/", 1) if "/" in variable.path else ("", variable.path)
        path = "/".join(part for part in (layer if count == 1 else f"{layer}~{count}", name) if part)
        specs.append(VariableSpec(path, tuple(variable.shape), variable.dtype, decay))
    return tuple(specs)


def traced_forward(model: keras.Model, inputs: Structure) -> tuple[Any, Structure]:
    """Return the forward pass in inference mode, and what it returns for one input.

    Parameters
    ----------
    model : keras.Model
        Built.
    inputs : Structure
        What one input looks like.

    Returns
    -------
    tuple
        A ``tf.function`` of one signature, ``(*trainable, *non_trainable, *inputs) -> [*outputs]``, and the structure.

    Raises
    ------
    RefusedError
        If the pass depends on more than the model's variables, or cannot be differentiated.
    """
    parameters = [_variable_spec(v) for v in model.trainable_variables]
    state = [_variable_spec(v) for v in model.non_trainable_variables]
    x_specs = [_batch_spec(leaf) for leaf in struct.leaves(inputs)]
    counts = (len(parameters), len(state), len(x_specs))
    found: list[Structure] = []

    def forward(*flat: tf.Tensor) -> list[tf.Tensor]:
        p, u, x = _split(flat, counts)
        outputs, _, _ = _call(model, p, u, struct.pack(inputs, x), training=False)
        found.append(_output_structure(outputs))
        return [tf.convert_to_tensor(value) for _, _, value in struct.flatten(found[-1], outputs, "")]

    traced = _trace(forward, [*parameters, *state, *x_specs])
    _refuse_impure(FORWARD, traced)
    return traced, found[-1]


def training_argument(model: keras.Model, training: bool) -> dict[str, bool]:
    """Return the argument with which Keras' trainer calls the model: none if its call() takes none."""
    return {"training": training} if model._call_has_training_arg else {}


def _call(
    model: keras.Model, p: list[tf.Tensor], u: list[tf.Tensor], x: Any, *, training: bool
) -> tuple[Any, list[tf.Tensor], list[tf.Tensor]]:
    """Return outputs, new state and ``model.losses``, with the variables' values replaced by ``p`` and ``u``.

    The model is called as the trainer calls it. ``stateless_call`` would call ``call`` itself, without what
    ``__call__`` adds: casts of the inputs, masks of the outputs, the model's own activity regulariser.
    """
    variables = [*model.trainable_variables, *model.non_trainable_variables]
    mapping = list(zip(variables, [*p, *u], strict=True))
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        outputs = model(x, **training_argument(model, training))
        penalties = list(model.losses)
    state = [tf.convert_to_tensor(scope.get_current_value(v)) for v in model.non_trainable_variables]
    return outputs, state, penalties


def _trace(function: Any, specs: list[tf.TensorSpec]) -> Any:
    named = [tf.TensorSpec(spec.shape, spec.dtype, f"argument_{i}") for i, spec in enumerate(specs)]
    traced = tf.function(function, input_signature=named, autograph=False)
    traced.get_concrete_function()
    return traced


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
            f"The model returns {found} among its outputs. Return tensors (batch, ...), alone or in dicts (with "
            f"strings as keys), lists and tuples."
        )
    return struct.Leaf(outputs.dtype.name, tuple(outputs.shape[1:]))


def _refuse_impure(name: str, function: Any) -> None:
    _refuse_captured_variables(name, function)
    _refuse_calls(name, function)


def _refuse_captured_variables(name: str, function: Any) -> None:
    captured = [t for t in function.get_concrete_function().captured_inputs if t.dtype == tf.resource]
    if captured:
        raise RefusedError(
            f"The model's {name} reads {len(captured)} variable(s) or table(s) that are neither in "
            f"model.trainable_variables nor in model.non_trainable_variables, so the record would not hold "
            f"them. Create variables with self.add_weight(...) in a layer; loss weights must be numbers."
        )


def _refuse_calls(name: str, function: Any) -> None:
    calls = has_calls(function.get_concrete_function())
    if calls:
        raise RefusedError(
            f"The model's {name} calls functions that are compiled on their own ({', '.join(calls[:3])}): a grouped "
            f"convolution, or a tf.function with jit_compile=True within a layer. They cannot be differentiated from the "
            f"record. Write grouped convolutions as several, and leave jit_compile=True to model.compile()."
        )
