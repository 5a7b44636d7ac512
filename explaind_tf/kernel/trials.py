"""Trials: what a graph cannot promise is tried with numbers before it is relied on.

They are made *near* a point of the training: at the very start, layers may be all zeros (a head, a residual branch),
and whatever comes before them has no influence that could be tried.
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

# Samples of one trial, and groups of variables that are told apart in it.
_MOST = 8
_MOST_GROUPS = 32
# Share of a variable's gradient that kinks may account for.
_KINKS = 2e-2
# By which weights are moved, as a share of their size, and of 1 where they are all zero.
_SHAKE = 0.05
# What running a rule on examples of another arrangement may raise: shapes do not fit, at run time or already in the graph.
_UNFIT = (NotCoveredError, ValueError, tf.errors.InvalidArgumentError)


def samples_are_coupled(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Tell whether a sample's loss depends on the rest of its batch, or on its place in it.

    It does with BatchNorm in training mode and with dropout, whatever the layers are called: the losses of
    single samples are compared with those in the batch.
    """
    point = _shaken(loss.model, point)
    together = loss.values(point, constants, batch).numpy()
    # Samples of weight zero, or masked, tell nothing.
    positions = sorted({0, len(batch) - 1, *np.argsort(np.abs(together))[-2:].tolist()})
    alone = np.array([loss.values(point, constants, batch.part(k, k + 1)).numpy()[0] for k in positions])
    scale = max(float(np.max(np.abs(together))), 1e-30)
    return bool(np.max(np.abs(alone - together[positions])) > np.sqrt(np.finfo(alone.dtype).eps) * scale)


def sample_products_hold(
    loss: LossDerivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Tell whether the rules give the products of rows with gradients of single samples, variable by variable.

    Only where samples do not interact.
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
    """Tell whether the rules give the gradients of single samples. Only where samples do not interact."""
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

    Samples do not interact, so the gradient of the batch with all other samples' shares at zero is that of one
    sample alone. It needs no function that replaying the run does not need, too.
    """
    point, part = _shaken(loss.model, point), batch.part(0, min(len(batch), _MOST))
    if len(part) == 1:  # one alone would be in place in any arrangement
        part = part.take(np.zeros(2, int))
    gradients = [loss.gradient(point, constants, part, shares).numpy() for shares in np.eye(len(part))]
    return point, part, np.stack(gradients)


def row_rules_hold(
    measurement: MeasurementDerivatives, path: StepPath, block: Block, *, at_once: int = 1
) -> bool:
    """Tell whether the rules give the gradients of single measurements; ``at_once`` as in :func:`row_products_hold`."""

    def by_rule(path: StepPath, quadrature: Quadrature, part: Block, direction: np.ndarray) -> np.ndarray:
        rows = measurement.path_rows(path, quadrature, part, by_rule=True).numpy()
        pieces = np.split(rows * direction, np.cumsum(measurement.model.sizes)[:-1], axis=-1)
        return np.stack([piece.sum(axis=-1) for piece in pieces], axis=-1)

    return _products_hold(by_rule, measurement, path, block, at_once)


def row_products_hold(
    measurement: MeasurementDerivatives, path: StepPath, block: Block, *, at_once: int = 1
) -> bool:
    """Tell whether the rules give the products of directions with gradients of single measurements.

    They are held against JVPs, which need no rules and which every question needs anyway.

    Parameters
    ----------
    measurement : MeasurementDerivatives
        Of the model and measurement.
    path : StepPath
        A step.
    block : Block
        Some inputs.
    at_once : int
        Directions of one JVP. A graph is compiled for each number of them: choose the one that the sweep uses.
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
    # Two inputs at least, for one alone would be in place in any arrangement; a row is as large as the model.
    count = min(max(len(block), 2), max(2, _MOST // outputs))
    part = block.take(np.arange(count) % len(block))
    quadrature = Quadrature.same(len(part))
    direction = _direction(model, path.start)
    try:
        found = by_rule(path, quadrature, part, direction)
    except _UNFIT:
        return False
    # A JVP for each variable, or for several together where there are many.
    group_of = np.arange(len(model.sizes)) % min(len(model.sizes), _MOST_GROUPS)
    masks = np.repeat(group_of, model.sizes) == np.arange(group_of.max() + 1)[:, None]
    padded = np.zeros((-(-len(masks) // at_once) * at_once, len(direction)), direction.dtype)
    padded[: len(masks)] = masks * direction
    table = quadrature.by_node()[0]
    jvps = [
        measurement.path_jvp(path, table, directions, part).numpy()  # (inputs, at_once, O)
        for directions in np.split(padded, len(padded) // at_once)
    ]
    expected = np.moveaxis(np.concatenate(jvps, axis=1)[:, : len(masks)], 1, -1)
    summed = np.stack([found[..., group_of == group].sum(axis=-1) for group in range(len(masks))], axis=-1)
    return _agree(summed, expected, [1] * len(masks))


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

    A wrong rule is off by as much as the gradient itself. Rounding is not, and neither is a kink (of a ReLU, say) that
    rounds to one side in a batch and to the other alone.
    """
    if found.shape != expected.shape:
        return False
    rounding = np.sqrt(np.finfo(expected.dtype).eps) * np.linalg.norm(expected)
    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(found, cuts, axis=-1), np.split(expected, cuts, axis=-1), strict=True)
    return all(np.linalg.norm(f - e) <= _KINKS * np.linalg.norm(e) + rounding for f, e in pairs)
