"""Turns a recorded run and a measurement into a :class:`PureModel`, and recorded states into its points."""

import dataclasses
from collections.abc import Callable, Hashable, Sequence

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.functions import Losses, PureModel
from explaind_tf.measurements import Measurement
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.description import VariableSpec


def pure_model(run: WeightPath, measurement: Measurement) -> PureModel:
    """Return the run's graphs and a measurement as functions of lists of variables."""
    graphs, manifest = run.graphs, run.manifest
    count = len(manifest.variables)
    trained = tuple(_spec(spec) for spec in manifest.variables)

    def arguments(variables: Sequence[tf.Tensor], constants: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        floating, others = iter(variables[count:]), iter(constants)
        state = [next(floating if spec.is_floating else others) for spec in manifest.state]
        return [*variables[:count], *state]

    def measure(variables, constants, inputs, targets):
        flat = graphs.forward(*arguments(variables, constants), *inputs)
        outputs = struct.pack(manifest.outputs, flat)
        return tf.cast(measurement(outputs, *targets), trained[0].dtype)

    def losses_of(function: Callable[..., list[tf.Tensor]]) -> Losses:
        def losses(variables, constants, inputs, targets, weights, scales):
            return function(*arguments(variables, constants), *inputs, *targets, *weights, scales)[0]

        return losses

    def loss_scales(variables, constants, inputs, targets, weights):
        return graphs.loss_scales(*arguments(variables, constants), *inputs, *targets, *weights)[0]

    def regularizer(variables, constants, inputs):
        return graphs.penalty(*arguments(variables, constants), *inputs)[0]

    model = PureModel(
        measure=measure,
        losses=losses_of(graphs.sample_losses),
        token_losses=None if graphs.token_losses is None else losses_of(graphs.token_losses),
        loss_scales=loss_scales,
        regularizer=regularizer if manifest.loss.get("has_regularizer") else None,
        trained=trained,
        state=tuple(_spec(spec) for spec in manifest.state if spec.is_floating),
        constants=tuple(_spec(spec) for spec in manifest.state if not spec.is_floating),
        inputs=tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.inputs)),
        measure_targets=tuple(
            tf.TensorSpec((None, *target.shape[1:]), target.dtype) for target in measurement.targets
        ),
        loss_targets=tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.targets)),
        loss_weights=tuple(_batch_spec(leaf) for leaf in run.step_store.layout.weights),
    )
    return dataclasses.replace(
        model,
        measure_key=_measure_key(run, measurement, model),
        losses_key=_losses_key(run, model),
    )


def _measure_key(run: WeightPath, measurement: Measurement, model: PureModel) -> Hashable | None:
    digest = run.graphs.forward.digest
    # What a function of somebody else computes may change between two runs: it may read a variable.
    if digest is None or not measurement.is_of_library:
        return None
    outputs = repr(run.manifest.outputs)
    return (digest, measurement.function, outputs, *_variables(run, model), model.measure_targets)


def _losses_key(run: WeightPath, model: PureModel) -> Hashable | None:
    digests = run.graphs.losses_digest
    if digests is None:
        return None
    samples = (model.loss_targets, model.loss_weights, model.regularizer is None)
    return (digests, *_variables(run, model), *samples)


def _variables(run: WeightPath, model: PureModel) -> tuple[Hashable, ...]:
    # Where floating-point and other state stand among each other is not in the specs.
    order = tuple(spec.is_floating for spec in run.manifest.state)
    specs = (model.trained, model.state, model.constants, model.inputs)
    return (order, *(tuple((spec.shape, spec.dtype) for spec in part) for part in specs))


def _spec(spec: VariableSpec) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype)


def _batch_spec(leaf: struct.Leaf) -> tf.TensorSpec:
    return tf.TensorSpec((None, *leaf.shape), leaf.dtype)


def flat_point(run: WeightPath, theta: np.ndarray, state: Sequence[np.ndarray]) -> np.ndarray:
    """Return z = (θ, floating-point state), shape (Z,)."""
    floating = [
        value.reshape(-1).astype(theta.dtype)
        for spec, value in zip(run.manifest.state, state, strict=True)
        if spec.is_floating
    ]
    return np.concatenate([theta, *floating])


def constants_of(run: WeightPath, state: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the state that is not part of the point: seeds, counters."""
    return [value for spec, value in zip(run.manifest.state, state, strict=True) if not spec.is_floating]
