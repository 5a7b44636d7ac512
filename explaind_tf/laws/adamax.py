"""The law of Adamax."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class AdamaxLaw(Law):
    """The displacement of ``keras.optimizers.Adamax``.

    With ``keras/src/optimizers/adamax.py::update_step`` and ``t = iteration + 1``::

        decay_s = − η_s λ w ⊙ θ_s
        m_s     = β₁ m_{s−1} + (1 − β₁) g_s
        u_s     = max(β₂ u_{s−1}, |g_s|)
        Δθ_s    = decay_s − η_s m_s / ((1 − β₁ᵗ) (u_s + ε))

    u_s is taken from the record, where it has the place of the second moment.

    Parameters
    ----------
    beta_1, epsilon, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    beta_1: float
    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "Adamax"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        """Share β₁ of the momentum that survives a step."""
        return self.beta_1

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 − β₁ and pull −η_s / ((1 − β₁ᵗ) (u_s + ε))."""
        divisor = self.divisor(before, after, iteration)
        dtype = divisor.dtype
        # Keras casts a Python float to float32 before float64, and so does tf.cast.
        correction = 1 - tf.pow(tf.cast(self.beta_1, dtype), tf.cast(iteration + 1, dtype))
        return StepFactors(1 - self.beta_1, -exact_cast(learning_rate, dtype) / (correction * divisor), 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return u_s + ε, shape (D,): the size of the largest recent gradients, and ε."""
        return tf.constant(after.second_moment) + self.epsilon

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
