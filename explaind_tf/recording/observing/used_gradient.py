"""The gradient that the optimizer used in a step, and the gradient that it should have used."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf.laws import clip_ratio


@dataclass(frozen=True)
class Preparation:
    """How an update prepares a batch's gradient before it uses it.

    Attributes
    ----------
    waiting : np.ndarray
        Sum of the gradients that waited for the update, shape (D,).
    accumulates : int
        Number of batches that are averaged.
    clip_factors : np.ndarray or None
        Factors of clipping by norm, shape (D,).
    clipvalue : float or None
        Limit to which elements are clipped.
    """

    waiting: np.ndarray
    accumulates: int
    clip_factors: np.ndarray | None
    clipvalue: float | None

    def of_batch(self, gradient: np.ndarray) -> np.ndarray:
        """Return the gradient of a batch as the update uses it: accumulated, averaged, clipped; shape (D,)."""
        gradient = (gradient + self.waiting) / gradient.dtype.type(self.accumulates)
        if self.clip_factors is not None:
            return gradient * self.clip_factors.astype(gradient.dtype)
        if self.clipvalue is not None:
            return gradient * clip_ratio(tf.constant(gradient), self.clipvalue).numpy()
        return gradient


@dataclass(frozen=True)
class UsedGradient:
    """The gradient that a step used, recovered from the optimizer's variables.

    Attributes
    ----------
    value : np.ndarray
        The gradient, shape (D,).
    rounding : float
        Norm of its rounding error.
    preparation : Preparation or None
        How the update prepared it; None if the step only accumulated it.
    """

    value: np.ndarray
    rounding: float
    preparation: Preparation | None = None

    def expected(self, gradient: np.ndarray) -> np.ndarray:
        """Return what the step should have used, given the gradient of its batch, shape (D,)."""
        return gradient if self.preparation is None else self.preparation.of_batch(gradient)
