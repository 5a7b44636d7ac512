"""A recorded run and a measurement as a :class:`PureModel` of one flat point."""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.functions import Losses, PureModel
from explaind_tf.measurements import Measurement
from explaind_tf.runs import RecordedRun
from explaind_tf.runs import structure as struct
from explaind_tf.runs.graphs import InlinedFunction
from explaind_tf.runs.schema import VariableSpec


def pure_model(run: RecordedRun, measurement: Measurement) -> PureModel:
    """Bind the run's graphs and a measurement to a flat point z = (θ, floating-point state)."""
    graphs, manifest = run.graphs, run.manifest
    dtype = tf.dtypes.as_dtype(manifest.variables[0].dtype)
    floats = [spec for spec in manifest.state if spec.is_floating]
    theta_size = sum(spec.size for spec in manifest.variables)
    specs = [*manifest.variables, *floats]

    def unpack(point: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        pieces = tf.split(point, [spec.size for spec in specs])
        values = [
            tf.cast(tf.reshape(piece, spec.shape), spec.dtype)
            for piece, spec in zip(pieces, specs, strict=True)
        ]
        return values[: len(manifest.variables)], values[len(manifest.variables) :]

    def arguments(point: tf.Tensor, constants: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        parameters, floating = unpack(point)
        floating_values, constant_values = iter(floating), iter(constants)
        state = [next(floating_values if spec.is_floating else constant_values) for spec in manifest.state]
        return [*parameters, *state]

    def measure(point, constants, inputs, targets):
        flat = graphs.forward(*arguments(point, constants), *inputs)
        outputs = struct.pack(manifest.outputs, flat)
        return tf.cast(measurement(outputs, *targets), dtype)

    def losses_of(function: InlinedFunction) -> Losses:
        def losses(point, constants, inputs, targets, weights, scales):
            return function(*arguments(point, constants), *inputs, *targets, *weights, scales)[0]

        return losses

    def loss_scales(point, constants, inputs, targets, weights):
        return graphs.loss_scales(*arguments(point, constants), *inputs, *targets, *weights)[0]

    def regularizer(point, constants, inputs):
        return graphs.penalty(*arguments(point, constants), *inputs)[0]

    return PureModel(
        measure=measure,
        losses=losses_of(graphs.sample_losses),
        token_losses=None if graphs.token_losses is None else losses_of(graphs.token_losses),
        loss_scales=loss_scales,
        regularizer=regularizer if manifest.loss.get("has_regularizer") else None,
        theta_size=theta_size,
        point_size=theta_size + sum(spec.size for spec in floats),
        dtype=dtype,
        constants=tuple(_spec(spec) for spec in manifest.state if not spec.is_floating),
        inputs=tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.inputs)),
        measure_targets=tuple(
            tf.TensorSpec((None, *target.shape[1:]), target.dtype) for target in measurement.targets
        ),
        loss_targets=tuple(_batch_spec(leaf) for leaf in struct.leaves(manifest.targets)),
        loss_weights=tuple(_batch_spec(leaf) for leaf in run.step_store.layout.weights),
    )


def _spec(spec: VariableSpec) -> tf.TensorSpec:
    return tf.TensorSpec(spec.shape, spec.dtype)


def _batch_spec(leaf: struct.Leaf) -> tf.TensorSpec:
    return tf.TensorSpec((None, *leaf.shape), leaf.dtype)


def flat_point(run: RecordedRun, theta: np.ndarray, state: Sequence[np.ndarray]) -> np.ndarray:
    """Return z = (θ, floating-point state), shape (Z,)."""
    floating = [
        value.reshape(-1).astype(theta.dtype)
        for spec, value in zip(run.manifest.state, state, strict=True)
        if spec.is_floating
    ]
    return np.concatenate([theta, *floating])


def constants_of(run: RecordedRun, state: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the state that is no part of the point: seeds, counters."""
    return [value for spec, value in zip(run.manifest.state, state, strict=True) if not spec.is_floating]
