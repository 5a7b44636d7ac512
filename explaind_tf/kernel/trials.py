"""Trials: numerical checks of what a graph cannot guarantee, before anything relies on it.

They use a point *near* one of the training. At the very start, a layer may be all zeros (a head, a residual branch). The
layers before it then have no influence that could be checked.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.operations.uses import NotCoveredError
from explaind_tf.kernel.quadrature.nodes import Quadrature

# Samples, and outputs, of one trial.
_MOST = 8
_OUTPUTS = 4
# Share of a variable's gradient by which kinks (non-smooth points) may change it.
_KINKS = 2e-2
# Random change of the weights, as a share of their size, or of 1 if they are all zero.
_SHAKE = 0.05
# What a rule may raise on examples in another arrangement: shapes do not fit, at run time or already in the graph.
_UNFIT = (NotCoveredError, ValueError, tf.errors.InvalidArgumentError)


def samples_are_coupled(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Return whether a sample's loss depends on the rest of its batch, or on its place in it.

    It does with BatchNorm in training mode and with dropout. No layer has to be known for this: the losses of single
    samples are compared with those in the batch.
    """
    point = _shaken(loss.model, point)
    together = loss.values(point, constants, batch).numpy()
    # Masked samples and those of weight zero show nothing, so the largest losses are included.
    positions = sorted({0, len(batch) - 1, *np.argsort(np.abs(together))[-2:].tolist()})
    alone = np.array([loss.values(point, constants, batch.part(k, k + 1)).numpy()[0] for k in positions])
    scale = max(float(np.max(np.abs(together))), 1e-30)
    return bool(np.max(np.abs(alone - together[positions])) > np.sqrt(np.finfo(alone.dtype).eps) * scale)


def sample_rules_hold(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Return whether the rules give the gradients of single samples, and their products with rows.

    Call it only if samples do not interact.
    """
    point, part = _shaken(loss.model, point), batch.part(0, min(len(batch), _MOST))
    if len(part) == 1:  # a single one is in place in any arrangement
        inputs, targets, weights = (
            [np.repeat(array, 2, axis=0) for array in arrays]
            for arrays in (part.inputs, part.targets, part.weights)
        )
        part = Batch(inputs, targets, weights, part.scales)
    expected = loss.sample_gradients(point, constants, part, by_rule=False).numpy()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, expected.shape[1])).astype(expected.dtype)
    try:
        found = loss.sample_gradients(point, constants, part, by_rule=True).numpy()
        products = loss.contract(point, constants, part, tf.constant(rows)).numpy().sum(axis=-1)
    except _UNFIT:
        return False
    sizes = loss.model.sizes[: len(loss.model.trained)]
    return _agree(found, expected, sizes) and _agree(products, rows @ expected.T, [len(part)])


def row_rules_hold(measurement: MeasurementDerivatives, path: StepPath, block: Block) -> bool:
    """Return whether the rules give the gradients of single measurements."""
    path = dataclasses.replace(path, start=_shaken(measurement.model, path.start))
    outputs = int(measurement.values(path.start, path.constants, block.take(slice(0, 1))).shape[1])
    # At least two inputs, since a single one is in place in any arrangement. A row is as large as the model.
    count = min(max(len(block), 2), max(2, _MOST // outputs))
    part = block.take(np.arange(count) % len(block))
    quadrature = Quadrature.same(len(part))
    asked = np.unique(np.linspace(0, outputs - 1, _OUTPUTS).round().astype(int))
    expected = measurement.path_rows(path, quadrature, part, by_rule=False, outputs=asked).numpy()
    try:
        found = measurement.path_rows(path, quadrature, part, by_rule=True, outputs=asked).numpy()
    except _UNFIT:
        return False
    width = expected.shape[-1]
    return _agree(found.reshape(-1, width), expected.reshape(-1, width), measurement.model.sizes)


def _shaken(model: PureModel, point: np.ndarray) -> np.ndarray:
    """Return a point nearby, with the same state and no weights of zero."""
    rng = np.random.default_rng(0)
    sizes = model.sizes
    pieces = np.split(point, np.cumsum(sizes)[:-1])
    for index in range(len(model.trained)):
        spread = np.linalg.norm(pieces[index]) / np.sqrt(max(sizes[index], 1)) or 1.0
        noise = rng.normal(scale=_SHAKE * spread, size=sizes[index])
        pieces[index] = pieces[index] + noise.astype(point.dtype)
    return np.concatenate(pieces)


def _agree(found: np.ndarray, expected: np.ndarray, sizes: list[int]) -> bool:
    """Compare gradients variable by variable.

    A wrong rule is off by as much as the gradient itself. The effect of rounding is smaller. So is that of a kink (of a
    ReLU, say) where a value rounds to one side in a batch and to the other side alone.
    """
    if found.shape != expected.shape:
        return False
    rounding = np.sqrt(np.finfo(expected.dtype).eps) * np.linalg.norm(expected)
    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(found, cuts, axis=1), np.split(expected, cuts, axis=1), strict=True)
    return all(np.linalg.norm(f - e) <= _KINKS * np.linalg.norm(e) + rounding for f, e in pairs)
