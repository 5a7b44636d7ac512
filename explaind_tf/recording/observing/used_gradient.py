"""The gradient that the optimizer used in a step, and what it should have been made of."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf.laws import clip_ratio


@dataclass(frozen=True)
class Preparation:
    """What an update makes of a batch's gradient before it uses it.

    Attributes
    ----------
    waiting : np.ndarray
        Sum of the gradients that waited for the update, shape (D,).
    accumulates : int
        Batches that are averaged.
    clip_factors : np.ndarray or None
        Factors by which gradients are clipped by norm, shape (D,).
    clipvalue : float or None
        Limit by which elements are clipped.
    """

    waiting: np.ndarray
    accumulates: int
    clip_factors: np.ndarray | None
    clipvalue: float | None

    def of_batch(self, gradient: np.ndarray) -> np.ndarray:
        """Return what the gradient of a batch becomes, shape (D,): accumulated, averaged, clipped."""
        gradient = (gradient + self.waiting) / gradient.dtype.type(self.accumulates)
        if self.clip_factors is not None:
            return gradient * self.clip_factors.astype(gradient.dtype)
        if self.clipvalue is not None:
            return gradient * clip_ratio(tf.constant(gradient), self.clipvalue).numpy()
        return gradient


@dataclass(frozen=True)
class UsedGradient:
    """The gradient that a step used, as far as the optimizer's variables betray it.

    Attributes
    ----------
    value : np.ndarray
        Shape (D,).
    rounding : float
        Norm of its rounding error.
    preparation : Preparation or None
        What the update made it of; None if the step only put it by.
    """

    value: np.ndarray
    rounding: float
    preparation: Preparation | None = None

    def expected(self, gradient: np.ndarray) -> np.ndarray:
        """Return what the step should have used, given the gradient of its batch, shape (D,)."""
        return gradient if self.preparation is None else self.preparation.of_batch(gradient)
