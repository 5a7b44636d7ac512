"""Trials: numerical checks of what a graph cannot guarantee, before anything relies on it.

They use a point *near* one of the training. At the very start, a layer may be all zeros (a head, a residual branch). The
layers before it then have no influence that could be checked.
"""

import dataclasses

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.derivatives.measurement import MeasurementDerivatives, RowsRoute
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
    samples, and their gradients, are compared with those in the batch. Losses alone would not show it where most of them
    comes from targets that no prediction is near to.
    """
    point = _shaken(loss.model, point)
    together = loss.values(point, constants, batch).numpy()
    # Masked samples and those of weight zero show nothing, so the largest losses are included.
    positions = sorted({0, len(batch) - 1, *np.argsort(np.abs(together))[-2:].tolist()})
    alone = np.array([loss.values(point, constants, batch.part(k, k + 1)).numpy()[0] for k in positions])
    scale = max(float(np.max(np.abs(together))), 1e-30)
    if np.max(np.abs(alone - together[positions])) > np.sqrt(np.finfo(alone.dtype).eps) * scale:
        return True
    shares = np.eye(len(batch))
    within = [loss.gradient(point, constants, batch, shares[k]).numpy() for k in positions]
    single = [loss.gradient(point, constants, batch.part(k, k + 1)).numpy() for k in positions]
    return not _agree(np.stack(single), np.stack(within), _theta_sizes(loss.model))


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
    measurement: MeasurementDerivatives, path: StepPath, block: Block, *, at_once: int | None = 1
) -> bool:
    """Return whether the rules give the gradients of single measurements.

    ``at_once`` is that of :func:`row_products_hold`. None compares with measurements one by one instead of JVPs,
    for callers that take no JVP: TensorFlow lacks the second-order gradients of some operations.
    """
    trial = _RowTrial(measurement, path, block)

    def products(route: RowsRoute) -> np.ndarray:
        rows = measurement.path_rows(trial.path, trial.quadrature, trial.part, route=route).numpy()
        pieces = np.split(rows * trial.direction, np.cumsum(measurement.model.sizes)[:-1], axis=-1)
        return trial.summed(np.stack([piece.sum(axis=-1) for piece in pieces], axis=-1))

    try:
        found = products("rules")
    except _UNFIT:
        return False
    return trial.agrees(found, products("calls") if at_once is None else trial.by_jvps(at_once))


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
    trial = _RowTrial(measurement, path, block)
    try:
        found = measurement.path_products(trial.path, trial.quadrature, trial.direction[None], trial.part)
    except _UNFIT:
        return False
    return trial.agrees(trial.summed(found.numpy()[:, :, 0]), trial.by_jvps(at_once))


class _RowTrial:
    """A few inputs near a point of the path, and a direction whose products with their gradients are compared.

    The products are compared variable by variable, or for several variables together if there are many.
    """

    def __init__(self, measurement: MeasurementDerivatives, path: StepPath, block: Block) -> None:
        self._measurement, model = measurement, measurement.model
        self.path = dataclasses.replace(path, start=_shaken(model, path.start))
        probe = block.take(slice(0, 1))
        outputs = int(measurement.values(self.path.start, path.constants, probe).shape[1])
        # At least two inputs, since a single one is in place in any arrangement. A row is as large as the model.
        count = min(max(len(block), 2), max(2, _MOST // outputs))
        self.part = block.take(np.arange(count) % len(block))
        self.quadrature = Quadrature.same(count)
        self.direction = _direction(model, self.path.start)
        self._group_of = np.arange(len(model.sizes)) % min(len(model.sizes), _MOST_GROUPS)
        self._groups = np.unique(self._group_of)

    def summed(self, products: np.ndarray) -> np.ndarray:
        """Return products by variable (inputs, O, V) as those by group, (inputs, O, groups)."""
        by_group = [products[..., self._group_of == group].sum(axis=-1) for group in self._groups]
        return np.stack(by_group, axis=-1)

    def by_jvps(self, at_once: int) -> np.ndarray:
        """Return the products by group from a JVP for each."""
        sizes, table, found = self._measurement.model.sizes, self.quadrature.by_node()[0], []
        for first in range(0, len(self._groups), at_once):
            masked = [np.repeat(self._group_of == first + k, sizes) * self.direction for k in range(at_once)]
            found.append(self._measurement.path_jvp(self.path, table, np.stack(masked), self.part).numpy())
        return np.moveaxis(np.concatenate(found, axis=1)[:, : len(self._groups)], 1, -1)

    def agrees(self, found: np.ndarray, expected: np.ndarray) -> bool:
        """Return whether products by group agree."""
        return _agree(found, expected, [1] * len(self._groups))


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
