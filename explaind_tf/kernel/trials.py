"""Trials: numerical checks of what a graph cannot guarantee, before anything relies on it.

They use a point *near* one of the training. At the very start, a layer may be all zeros (a head, a residual branch). The
layers before it then have no influence that could be checked.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.operations.uses import NotCoveredError
from explaind_tf.kernel.quadrature.nodes import Quadrature

# Most samples of one trial, and most groups of variables that it compares.
_MOST = 8
_MOST_GROUPS = 32
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


def sample_products_hold(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Return whether the rules give the products of rows with gradients of single samples, variable by variable.

    Call it only if samples do not interact.
    """
    point, part, expected = _single_samples(loss, point, constants, batch)
    rows = np.random.default_rng(0).normal(size=(2, expected.shape[1])).astype(expected.dtype)
    try:
        found = loss.contract(point, constants, part, tf.constant(rows)).numpy()
    except _UNFIT:
        return False
    cuts = np.cumsum(_theta_sizes(loss.model))[:-1]
    pairs = zip(np.split(rows, cuts, axis=1), np.split(expected, cuts, axis=1), strict=True)
    products = np.stack([row @ gradient.T for row, gradient in pairs], axis=-1)  # (F, K, V)
    return _agree(found, products, [1] * products.shape[-1])


def sample_gradients_hold(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Return whether the rules give the gradients of single samples. Only where samples do not interact."""
    point, part, expected = _single_samples(loss, point, constants, batch)
    try:
        found = loss.sample_gradients(point, constants, part, by_rule=True).numpy()
    except _UNFIT:
        return False
    return _agree(found, expected, _theta_sizes(loss.model))


def _single_samples(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> tuple[np.ndarray, Batch, np.ndarray]:
    """Return a point nearby, samples to try, and the gradient of each, shape (K, D).

    Samples do not interact. So the gradient of the batch is that of one sample if all other shares are zero. The
    replay of a run compiles this function anyway.
    """
    point, part = _shaken(loss.model, point), batch.part(0, min(len(batch), _MOST))
    if len(part) == 1:  # one alone would be in place in any arrangement
        part = part.take(np.zeros(2, int))
    gradients = [loss.gradient(point, constants, part, shares).numpy() for shares in np.eye(len(part))]
    return point, part, np.stack(gradients)


def row_rules_hold(
    measurement: MeasurementDerivatives, path: StepPath, block: Block, *, at_once: int = 1
) -> bool:
    """Return whether the rules give the gradients of single measurements; ``at_once`` as in :func:`row_products_hold`."""

    def by_rule(path: StepPath, quadrature: Quadrature, part: Block, direction: np.ndarray) -> np.ndarray:
        rows = measurement.path_rows(path, quadrature, part, by_rule=True).numpy()
        pieces = np.split(rows * direction, np.cumsum(measurement.model.sizes)[:-1], axis=-1)
        return np.stack([piece.sum(axis=-1) for piece in pieces], axis=-1)

    return _products_hold(by_rule, measurement, path, block, at_once)


def row_products_hold(
    measurement: MeasurementDerivatives, path: StepPath, block: Block, *, at_once: int = 1
) -> bool:
    """Return whether the rules give the products of directions with gradients of single measurements.

    They are compared with JVPs, which need no rules and which every question compiles anyway.

    Parameters
    ----------
    measurement : MeasurementDerivatives
        Of the model and measurement.
    path : StepPath
        A step.
    block : Block
        Some inputs.
    at_once : int
        Number of directions of one JVP. A graph is compiled for each such number: choose that of the sweep.
    """

    def by_rule(path: StepPath, quadrature: Quadrature, part: Block, direction: np.ndarray) -> np.ndarray:
        return measurement.path_products(path, quadrature, direction[None], part).numpy()[:, :, 0]

    return _products_hold(by_rule, measurement, path, block, at_once)


def _products_hold(
    by_rule: Callable[[StepPath, Quadrature, Block, np.ndarray], np.ndarray],
    measurement: MeasurementDerivatives,
    path: StepPath,
    block: Block,
    at_once: int,
) -> bool:
    """Compare products of a direction with gradients, (inputs, O, V), with JVPs in the pieces of that direction."""
    model = measurement.model
    path = dataclasses.replace(path, start=_shaken(model, path.start))
    outputs = int(measurement.values(path.start, path.constants, block.take(slice(0, 1))).shape[1])
    # At least two inputs, since a single one is in place in any arrangement. A row is as large as the model.
    count = min(max(len(block), 2), max(2, _MOST // outputs))
    part = block.take(np.arange(count) % len(block))
    quadrature = Quadrature.same(len(part))
    direction = _direction(model, path.start)
    try:
        found = by_rule(path, quadrature, part, direction)
    except _UNFIT:
        return False
    # A JVP for each variable, or for several together if there are many.
    group_of = np.arange(len(model.sizes)) % min(len(model.sizes), _MOST_GROUPS)
    groups, table = np.unique(group_of), quadrature.by_node()[0]
    jvps = []
    for first in range(0, len(groups), at_once):
        masked = [np.repeat(group_of == first + k, model.sizes) * direction for k in range(at_once)]
        jvps.append(measurement.path_jvp(path, table, np.stack(masked), part).numpy())
    expected = np.moveaxis(np.concatenate(jvps, axis=1)[:, : len(groups)], 1, -1)  # (inputs, O, groups)
    summed = np.stack([found[..., group_of == group].sum(axis=-1) for group in groups], axis=-1)
    return _agree(summed, expected, [1] * len(groups))


def _theta_sizes(model: PureModel) -> list[int]:
    return model.sizes[: len(model.trained)]


def _direction(model: PureModel, point: np.ndarray) -> np.ndarray:
    """Return a random direction in which each variable is changed by as much as it is large, shape (Z,)."""
    rng = np.random.default_rng(1)
    pieces = np.split(point, np.cumsum(model.sizes)[:-1])
    found = [_spread(piece) * rng.normal(size=len(piece)) for piece in pieces]
    return np.concatenate(found).astype(point.dtype)


def _shaken(model: PureModel, point: np.ndarray) -> np.ndarray:
    """Return a point nearby, with the same state and no weights of zero."""
    rng = np.random.default_rng(0)
    sizes = model.sizes
    pieces = np.split(point, np.cumsum(sizes)[:-1])
    for index in range(len(model.trained)):
        noise = rng.normal(scale=_SHAKE * _spread(pieces[index]), size=sizes[index])
        pieces[index] = pieces[index] + noise.astype(point.dtype)
    return np.concatenate(pieces)


def _spread(values: np.ndarray) -> float:
    """Return the root mean square of a variable, and 1 of one that is all zero."""
    return float(np.linalg.norm(values) / np.sqrt(max(len(values), 1))) or 1.0


def _agree(found: np.ndarray, expected: np.ndarray, sizes: list[int]) -> bool:
    """Compare gradients, or products with them, variable by variable along the last axis.

    A wrong rule is off by as much as the gradient itself. The effect of rounding is smaller. So is that of a kink (of a
    ReLU, say) where a value rounds to one side in a batch and to the other side alone.
    """
    if found.shape != expected.shape:
        return False
    rounding = np.sqrt(np.finfo(expected.dtype).eps) * np.linalg.norm(expected)
    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(found, cuts, axis=-1), np.split(expected, cuts, axis=-1), strict=True)
    return all(np.linalg.norm(f - e) <= _KINKS * np.linalg.norm(e) + rounding for f, e in pairs)
