"""Turns a recorded run and a measurement into a :class:`PureModel`, and recorded states into its points."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.kernel.functions import Losses, PureModel
from explaind_tf.kernel.points import cut
from explaind_tf.measurements import Measurement
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.description import VariableSpec
from explaind_tf.runs.graphs.loaded import InlinedFunction, RunFunctions
from explaind_tf.runs.graphs.precision import eps_of, narrower_than


def pure_model(run: WeightPath, measurement: Measurement, dtype: tf.DType | None = None) -> PureModel:
    """Return the run's graphs and a measurement as functions of lists of variables.

    Parameters
    ----------
    run : WeightPath
        The run.
    measurement : Measurement
        What is measured of the outputs.
    dtype : tf.DType, optional
        Precision to compute in. By default as in training, be it mixed.
    """
    manifest, functions = run.manifest, run.graphs.functions
    if dtype is not None:
        functions = functions.in_precision(dtype, len(manifest.variables) + len(manifest.state))
    arguments = _arguments_of(run, dtype)
    weights_dtype = run.weights_dtype if dtype is None else dtype

    def measure(variables, constants, inputs, targets):
        flat = functions.forward(*arguments(variables, constants), *inputs)
        # What is measured of bfloat16 outputs is computed in the precision of the weights.
        narrow = narrower_than(weights_dtype)
        wide = [tf.cast(value, weights_dtype) if value.dtype in narrow else value for value in flat]
        return tf.cast(_measured(measurement, struct.pack(manifest.outputs, wide), targets), weights_dtype)

    def losses_of(function: Callable[..., list[tf.Tensor]] | None) -> Losses:
        if function is None:
            return _no_losses

        def losses(variables, constants, inputs, targets, weights, scales):
            return function(*arguments(variables, constants), *inputs, *targets, *weights, scales)[0]

        return losses

    def losses_and_state(variables, constants, inputs, targets, weights, scales):
        function = functions.sample_losses or _no_losses
        losses, *state = function(*arguments(variables, constants), *inputs, *targets, *weights, scales)
        return losses, state

    def loss_scales(variables, constants, inputs, targets, weights):
        function = functions.loss_scales or _no_losses
        return function(*arguments(variables, constants), *inputs, *targets, *weights)[0]

    def regularizer(variables, constants, inputs):
        return (functions.penalty or _no_losses)(*arguments(variables, constants), *inputs)[0]

    model = PureModel(
        measure=measure,
        losses=losses_of(functions.sample_losses),
        losses_and_state=losses_and_state,
        moving=run.moving,
        token_losses=None if functions.token_losses is None else losses_of(functions.token_losses),
        loss_scales=loss_scales,
        regularizer=regularizer if manifest.loss.get("has_regularizer") else None,
        coarsest_eps=max(eps_of(found) for found in {*functions.computes_in, weights_dtype}),
        **_signatures(run, measurement, dtype),
    )
    return dataclasses.replace(
        model,
        measure_key=_measure_key(run, functions, measurement, model),
        losses_key=_losses_key(run, functions, model),
    )


def _measured(measurement: Measurement, outputs: Any, targets: Sequence[tf.Tensor]) -> tf.Tensor:
    """Return a measurement, whose derivative is that of the function that it computes.

    A user's function may call others, as Keras' losses do. As a graph of its own they are seen through, too.
    """
    if measurement.is_of_library:
        return measurement(outputs, *targets)
    arguments = (outputs, list(targets))
    flat = tf.nest.flatten(arguments)

    def measured(*values: tf.Tensor) -> list[tf.Tensor]:
        outputs, targets = tf.nest.pack_sequence_as(arguments, values)
        return [measurement(outputs, *targets)]

    specs = [tf.TensorSpec(value.shape, value.dtype) for value in flat]
    traced = tf.function(measured, autograph=False).get_concrete_function(*specs)
    (found,) = InlinedFunction.of(traced).seen_through()(*flat)
    found.set_shape(traced.outputs[0].shape)
    return found


def _arguments_of(
    run: WeightPath, dtype: tf.DType | None
) -> Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], list[tf.Tensor]]:
    """Return what makes the first arguments of a run's functions of variables and constants, as they were recorded."""
    count, moving = len(run.variables), run.moving
    specs = [_spec(spec, dtype) for spec in run.manifest.state]

    def arguments(variables: Sequence[tf.Tensor], constants: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        state: list[Any] = [None] * len(specs)
        for place, value in zip(np.flatnonzero(moving).tolist(), variables[count:], strict=True):
            state[place] = value
        for vector, places in zip(constants, _constant_places(run).values(), strict=True):
            own = [specs[place] for place in places]
            for place, value in zip(places, cut(tf.cast(vector, own[0].dtype), own), strict=True):
                state[place] = value
        return [*variables[:count], *state]

    return arguments


def _constant_places(run: WeightPath) -> dict[tf.DType, list[int]]:
    """Return the places of the state that is constant, by type.

    A model may have hundreds. To pass those of a type as one vector saves hundreds of arguments of every graph.
    """
    found: dict[tf.DType, list[int]] = {}
    for place, (spec, moves) in enumerate(zip(run.manifest.state, run.moving, strict=True)):
        if not moves:
            found.setdefault(_spec(spec).dtype, []).append(place)
    return found


def _signatures(
    run: WeightPath, measurement: Measurement, dtype: tf.DType | None
) -> dict[str, tuple[tf.TensorSpec, ...]]:
    """Return the signatures of a model's variables and samples, by the names of :class:`PureModel`."""
    manifest, targets = run.manifest, measurement.targets
    state = list(zip(manifest.state, run.moving, strict=True))
    return {
        "trained": tuple(_spec(spec, dtype) for spec in manifest.variables),
        "state": tuple(_spec(spec, dtype) for spec, moves in state if moves),
        "constants": tuple(
            tf.TensorSpec((sum(manifest.state[place].size for place in places),), own)
            for own, places in _constant_places(run).items()
        ),
        "inputs": tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.inputs)),
        "measure_targets": tuple(
            tf.TensorSpec((None, *target.shape[1:]), target.dtype) for target in targets
        ),
        "loss_targets": tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.targets)),
        "loss_weights": tuple(_batch_spec(leaf) for leaf in run.step_store.layout.weights),
    }


def _measure_key(
    run: WeightPath, functions: RunFunctions, measurement: Measurement, model: PureModel
) -> Hashable | None:
    digest = functions.forward.digest
    # What a function of somebody else computes may change between two runs: it may read a variable.
    if digest is None or not measurement.is_of_library:
        return None
    outputs = repr(run.manifest.outputs)
    return (digest, measurement.function, outputs, *_variables(run, model), model.measure_targets)


def _losses_key(run: WeightPath, functions: RunFunctions, model: PureModel) -> Hashable | None:
    digests = functions.losses_digest
    if digests is None:
        return None
    samples = (model.loss_targets, model.loss_weights, model.regularizer is None)
    return (digests, *_variables(run, model), *samples)


def _variables(run: WeightPath, model: PureModel) -> tuple[Hashable, ...]:
    # Where what moves and what does not stand among each other is not in the specs, nor are the shapes of constants.
    specs = (model.trained, model.state, model.constants, model.inputs)
    shapes = tuple(spec.shape for spec in run.manifest.state)
    return (run.moving, shapes, *(tuple((spec.shape, spec.dtype) for spec in part) for part in specs))


def _no_losses(*_: tf.Tensor) -> Any:
    raise RefusedError(
        "These checkpoints have no loss, only a forward pass. To get losses, record the training with a PathLogger."
    )


def _spec(spec: VariableSpec, dtype: tf.DType | None = None) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, dtype if dtype is not None and spec.is_floating else spec.dtype)


def _batch_spec(leaf: struct.Leaf) -> tf.TensorSpec:
    return tf.TensorSpec((None, *leaf.shape), leaf.dtype)


def flat_point(
    run: WeightPath, theta: np.ndarray, state: Sequence[np.ndarray], dtype: Any = None
) -> np.ndarray:
    """Return z = (θ, the state that moves), shape (Z,), in a dtype; by default in that of the weights."""
    theta = theta.astype(theta.dtype if dtype is None else dtype, copy=False)
    moving = [
        value.reshape(-1).astype(theta.dtype) for moves, value in zip(run.moving, state, strict=True) if moves
    ]
    return np.concatenate([theta, *moving])


def constants_of(run: WeightPath, state: Sequence[np.ndarray]) -> list[tf.Tensor]:
    """Return the state that is not part of the point, one vector of each type: seeds, counters, frozen weights."""
    return [
        # As a tensor it is not copied at each call.
        tf.constant(np.concatenate([np.reshape(state[place], -1) for place in places]), dtype)
        for dtype, places in _constant_places(run).items()
    ]
