"""The gradient that an update used, and the gradient that its recorded batches give: are they the same up to rounding?

The one is recovered from the optimizer's variables, the other is computed again, perhaps in another order of operations.
How far rounding may change it does not follow from its size. It does not follow from the gradients of single samples
either: a bias before BatchNormalization has no gradient in any of them, and each is nothing but rounding. So rounding is
measured: the gradient is computed some more times, with weights and sample weights changed by some units in the last place.
Every operation then rounds anew, and the change shows how far rounding reaches::

    ‖g_used − g_again‖ ≤ γ · √(mean over draws ‖g_changed − g_again‖²)        for each variable
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf.laws.law import UsedGradient, clip_ratio

# γ. Gradients that were computed in another order of operations were seen to differ by up to 5 times the measured rounding
# (see tests/laws/test_used_gradients.py).
GAMMA = 32.0
# Of a sum without cancellation, rounding reaches no more than so many units in the last place.
UNITS = 32.0
# In low precision few operations are computed in another order, so differences are a small part of the rounding of all. With
# XLA they were seen to reach 5 times it, otherwise 0.03 (the gradient of an embedding, added up by several threads).
_LOW_PRECISION = {False: 0.125, True: 32.0}
# Times that the gradient is computed again, and the size of a change in units in the last place.
DRAWS = 4
_CHANGE = 2.0


@dataclass(frozen=True)
class Preparation:
    """How an update prepares the gradients of its batches before it uses them.

    Attributes
    ----------
    accumulates : int
        Number of batches that are averaged.
    clip_factors : np.ndarray or None
        Factors of clipping by norm, shape (D,).
    clipvalue : float or None
        Limit to which elements are clipped.
    """

    accumulates: int = 1
    clip_factors: np.ndarray | None = None
    clipvalue: float | None = None

    def __call__(self, gradient: np.ndarray) -> np.ndarray:
        """Return the sum of the batches' gradients as the update uses it: averaged and clipped, shape (D,)."""
        gradient = gradient / gradient.dtype.type(self.accumulates)
        if self.clip_factors is not None:
            return gradient * self.clip_factors.astype(gradient.dtype)
        if self.clipvalue is not None:
            return gradient * clip_ratio(tf.constant(gradient), self.clipvalue).numpy()
        return gradient

    def scaled(self, scale: np.ndarray) -> np.ndarray:
        """Return how large an error of a size becomes, shape (D,). Clipping by value makes none larger."""
        scale = scale / self.accumulates
        return scale if self.clip_factors is None else scale * self.clip_factors


class StepGradient(NamedTuple):
    """The gradient that a step used, and how it follows from the gradient of the step's batch.

    Attributes
    ----------
    used : UsedGradient
        The gradient.
    preparation : Preparation
        How the update prepared it.
    waiting : np.ndarray
        Sum of the gradients that waited for the update, shape (D,).
    """

    used: UsedGradient
    preparation: Preparation
    waiting: np.ndarray


@dataclass(frozen=True)
class Mismatch:
    """A variable whose used gradient is not the one that the batches give.

    Attributes
    ----------
    variable : int
        Its position.
    difference, allowed : float
        Norm of the difference, and the largest norm that rounding explains.
    """

    variable: int
    difference: float
    allowed: float


def find_mismatch(
    used: UsedGradient,
    expected: np.ndarray,
    sizes: Sequence[int],
    rounding: Callable[[], np.ndarray],
) -> Mismatch | None:
    """Return the variable whose gradients differ most beyond rounding, or None if there is none.

    Parameters
    ----------
    used : UsedGradient
        What the update used.
    expected : np.ndarray
        What its batches give, prepared in the same way, shape (D,).
    sizes : sequence of int
        Number of weights of each variable.
    rounding : callable
        Returns how far rounding may change the gradient, shape (D,). It is called only if a difference exceeds the
        rounding of a sum without cancellation.
    """
    difference = _norms(used.value - expected, sizes)
    found = None
    usual = UNITS * float(np.finfo(expected.dtype).eps)
    # A gradient that is nothing but rounding is as large as that of what passes through: the gradients of other weights.
    passing = usual * float(np.linalg.norm(expected.astype(np.float64)))
    for error in (lambda: usual * np.abs(expected), rounding):
        allowed = _norms(error(), sizes) + _norms(used.rounding, sizes) + passing
        excess = difference - allowed
        if (excess <= 0).all():  # a NaN on either side is no equality
            return None
        worst = int(np.argmax(np.where(np.isfinite(excess), excess, np.inf)))
        found = Mismatch(worst, float(difference[worst]), float(allowed[worst]))
    return found


class Arithmetic(NamedTuple):
    """The numbers that a training computes with.

    Attributes
    ----------
    eps : float
        Unit in the last place of the least precise of them.
    gamma : float
        How many times the measured rounding two gradients may differ.
    """

    eps: float
    gamma: float

    @classmethod
    def of(cls, weights_eps: float, coarsest_eps: float, *, with_xla: bool) -> "Arithmetic":
        """Return that of a training with weights of one precision and layers that may compute in another one."""
        is_low = coarsest_eps > weights_eps
        return cls(max(weights_eps, coarsest_eps), _LOW_PRECISION[with_xla] if is_low else GAMMA)


def measured_rounding(
    gradient: Callable[[np.ndarray, np.ndarray], np.ndarray],
    count: int,
    size: int,
    seed: int,
    eps: float,
    draws: int = DRAWS,
) -> np.ndarray:
    """Return how far rounding changes the gradient of a batch, element by element, or what else a batch gives.

    It is zero if the gradient is another one when it is computed again: then random numbers change it, not rounding.

    Parameters
    ----------
    gradient : callable
        Returns the gradient, shape (D,), for factors of the weights (D,) and of the samples' losses (count,).
    count, size : int
        Number of samples, and of weights D.
    seed : int
        Seed of the changes: the same call gives the same result.
    eps : float
        Unit in the last place of the numbers that training computes with.
    draws : int
        Number of changes.
    """
    generator = np.random.default_rng(seed)
    plain, again = (gradient(np.ones(size), np.ones(count)) for _ in range(2))
    squares = np.zeros(plain.shape)
    if np.linalg.norm(again - plain) > np.sqrt(eps) * np.linalg.norm(plain):
        return squares
    for _ in range(draws):
        factors = [1 + _CHANGE * eps * generator.choice([-1.0, 1.0], size=n) for n in (size, count)]
        squares += np.square(gradient(*factors).astype(np.float64) - plain)
    return np.sqrt(squares / draws)


def _norms(vector: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Return the Euclidean norm of each variable's part, in float64."""
    parts = np.split(vector.astype(np.float64), np.cumsum(sizes)[:-1])
    return np.array([np.linalg.norm(part) for part in parts])
