"""Trials: what a graph cannot promise is tried with numbers before it is relied on."""

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Block, Segment
from explaind_tf.kernel.quadrature import PathRule
from explaind_tf.kernel.uses import NotCoveredError

# Samples of one trial.
_MOST = 8
# Share of a variable's gradient that kinks may account for.
_KINKS = 2e-2


def samples_are_coupled(
    derivatives: Derivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Tell whether a sample's loss depends on the rest of its batch, or on its place in it.

    It does with BatchNorm in training mode and with dropout, whatever the layers are called: the losses of
    single samples are compared with those in the batch.
    """
    together = derivatives.losses(point, constants, batch).numpy()
    # Samples of weight zero, or masked, tell nothing.
    positions = sorted({0, len(batch) - 1, *np.argsort(np.abs(together))[-2:].tolist()})
    alone = np.array(
        [derivatives.losses(point, constants, batch.part(k, k + 1)).numpy()[0] for k in positions]
    )
    scale = max(float(np.max(np.abs(together))), 1e-30)
    return bool(np.max(np.abs(alone - together[positions])) > np.sqrt(np.finfo(alone.dtype).eps) * scale)


def sample_rules_hold(
    derivatives: Derivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Tell whether the rules give the gradients of single samples, and their products with rows.

    Only where samples do not interact.
    """
    part = batch.part(0, min(len(batch), _MOST))
    expected = derivatives.sample_gradients(point, constants, part, by_rule=False).numpy()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, expected.shape[1])).astype(expected.dtype)
    try:
        found = derivatives.sample_gradients(point, constants, part, by_rule=True).numpy()
        products = derivatives.contract(point, constants, part, tf.constant(rows)).numpy().sum(axis=-1)
    except (NotCoveredError, tf.errors.InvalidArgumentError):  # no rule, or examples of another arrangement
        return False
    sizes = derivatives.model.sizes[: len(derivatives.model.trained)]
    return _agree(found, expected, sizes) and _agree(products, rows @ expected.T, [len(part)])


def row_rules_hold(derivatives: Derivatives, segment: Segment, block: Block) -> bool:
    """Tell whether the rules give the gradients of single measurements."""
    part = block.take(slice(0, min(len(block), _MOST)))
    rule = PathRule(np.zeros(len(part), int), np.zeros(len(part), int))
    expected = derivatives.path_rows(segment, rule, part, by_rule=False).numpy()
    try:
        found = derivatives.path_rows(segment, rule, part, by_rule=True).numpy()
    except (NotCoveredError, tf.errors.InvalidArgumentError):
        return False
    width = expected.shape[-1]
    return _agree(found.reshape(-1, width), expected.reshape(-1, width), derivatives.model.sizes)


def _agree(found: np.ndarray, expected: np.ndarray, sizes: list[int]) -> bool:
    """Compare gradients variable by variable.

    A wrong rule is off by as much as the gradient itself. Rounding is not, and neither is a kink (of a ReLU, say) that
    rounds to one side in a batch and to the other alone.
    """
    if found.shape != expected.shape:
        return False
    rounding = np.sqrt(np.finfo(expected.dtype).eps) * np.linalg.norm(expected)
    cuts = np.cumsum(sizes)[:-1]
    pairs = zip(np.split(found, cuts, axis=1), np.split(expected, cuts, axis=1), strict=True)
    return all(np.linalg.norm(f - e) <= _KINKS * np.linalg.norm(e) + rounding for f, e in pairs)
