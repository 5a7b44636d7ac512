"""The law of AdamW, and of Adam without decay."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from explaind_tf.laws.carried import Carried, Rates, StepGradient, power, root
from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class AdamWLaw(Law):
    """The displacement of ``keras.optimizers.AdamW``.

    In the order of Keras (``keras/src/optimizers/base_optimizer.py::_backend_apply_gradients`` and
    ``adam.py::update_step``), with ``t = iteration + 1``::

        decay_s = − η_s λ w ⊙ θ_s
        v_s     = β₂ v_{s−1} + (1 − β₂) g_s²                 (amsgrad: the largest so far)
        P_s     = diag( η_s √(1 − β₂ᵗ) / (1 − β₁ᵗ) / (√v_s + ε) )
        Δθ_s    = decay_s − P_s m_s

    v_s is taken from the record. For sparse gradients (``Embedding``) Keras squares each occurrence of a row before it
    adds them, so g_s² is not always the square of the summed gradient.

    ε is added to the square root of the *uncorrected* v. The ExPLAIND paper (arXiv:2505.20076, Theorem
    3.1) and PyTorch add it after bias correction, so their formula is inexact for Keras.

    Parameters
    ----------
    beta_1, beta_2, epsilon, weight_decay : float
        The arguments of the Keras optimizer.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "AdamW"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        """Share β₁ of the momentum that survives a step."""
        return self.beta_1

    def momentum(
        self, momentum: tf.Tensor, gradient: tf.Tensor, gain: float | np.ndarray | tf.Tensor
    ) -> tf.Tensor:
        """Return m_s = m_{s−1} + (1 − β₁)(g_s − m_{s−1}), shape (D,)."""
        return momentum + (gradient - momentum) * (1 - self.beta_1)

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 − β₁ and pull −P_s, with v_s as the optimizer left it *after* the step."""
        second_moment = tf.constant(after.second_moment)
        dtype = second_moment.dtype
        # Keras casts a Python float to float32 before float64, and so does tf.cast.
        step = tf.cast(iteration + 1, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        rate = exact_cast(learning_rate, dtype) * tf.sqrt(correction_2) / correction_1
        return StepFactors(1 - self.beta_1, -rate / (tf.sqrt(second_moment) + self.epsilon), 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor | None:
        """Return (√v_s + ε) / √(1 − β₂ᵗ), shape (D,): the size of recent gradients, and ε."""
        second_moment = tf.constant(after.second_moment)
        dtype = second_moment.dtype
        correction = 1 - tf.pow(tf.cast(self.beta_2, dtype), tf.cast(iteration + 1, dtype))
        return (tf.sqrt(second_moment) + self.epsilon) / tf.sqrt(correction)

    def second_moment(self, before: tf.Tensor, square: tf.Tensor) -> tf.Tensor:
        """Return v_s = v_{s−1} + (1 − β₂)(g_s² − v_{s−1}), shape (..., D)."""
        return before + (square - before) * (1 - self.beta_2)

    def update(self, before: Carried, gradient: StepGradient, rates: Rates) -> Carried:
        """Return θ_s + Δθ_s, m_s and v_s; see :meth:`Law.update`."""
        dtype, step = before.theta.dtype, rates.iteration + 1
        corrected = tf.sqrt(1 - power(self.beta_2, step, dtype)) / (1 - power(self.beta_1, step, dtype))
        momentum = self.momentum(before.momentum, gradient.value, 1 - self.beta_1)
        square = self.second_moment(before.second_moment, gradient.square)
        moved = rates.learning_rate * corrected * momentum / (root(square) + self.epsilon)
        return Carried(before.theta - moved, momentum, square)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
