"""The law of Nadam."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from explaind_tf.laws.carried import Carried, Rates, StepGradient, power, root
from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast

# Keras' constant of the schedule of momenta.
_SCHEDULE = 0.96


@dataclass(frozen=True)
class NadamLaw(Law):
    """The displacement of ``keras.optimizers.Nadam``.

    With ``keras/src/optimizers/nadam.py::update_step`` and ``t = iteration + 1``::

        decay_s = − η_s λ w ⊙ θ_s
        u_t     = β₁ (1 − 0.96ᵗ / 2),  U_t = u_1 · … · u_t
        m_s     = β₁ m_{s−1} + (1 − β₁) g_s
        v_s     = β₂ v_{s−1} + (1 − β₂) g_s²
        R_s     = diag( η_s / (√(v_s / (1 − β₂ᵗ)) + ε) )
        Δθ_s    = decay_s − R_s (u_{t+1} / (1 − U_t u_{t+1}) m_s + (1 − u_t) / (1 − U_t) g_s)

    v_s and U_t are taken from the record.

    Parameters
    ----------
    beta_1, beta_2, epsilon, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    beta_1: float
    beta_2: float
    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "Nadam"
    divides_by_second_moment: ClassVar[bool] = True
    scalars: ClassVar[tuple[str, ...]] = ("u_product",)

    @property
    def memory(self) -> float:
        """Share β₁ of the momentum that survives a step, rounded to float32 as Keras rounds a Python float."""
        return float(np.float32(self.beta_1))

    @property
    def looks_ahead(self) -> bool:
        """True: the step uses the gradient besides the momentum."""
        return True

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 − β₁, and pull and direct, which both divide by √v_s."""
        divisor = self.divisor(before, after, iteration)
        dtype = divisor.dtype
        share, following = (self._share(iteration + ahead, dtype) for ahead in (1, 2))
        product = exact_cast(after.further["u_product"], dtype)
        step = exact_cast(learning_rate, dtype) / divisor
        pull = -following / (1 - product * following) * step
        return StepFactors(1 - self.memory, pull, -(1 - share) / (1 - product) * step)

    def _share(self, number: int, dtype: tf.DType) -> tf.Tensor:
        """Return u of an update, counted from 1."""
        return tf.cast(self.beta_1, dtype) * (
            1 - 0.5 * tf.pow(tf.cast(_SCHEDULE, dtype), tf.cast(number, dtype))
        )

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return √(v_s / (1 − β₂ᵗ)) + ε, shape (D,): the size of recent gradients, and ε."""
        second_moment = tf.constant(after.second_moment)
        dtype = second_moment.dtype
        correction = 1 - tf.pow(tf.cast(self.beta_2, dtype), tf.cast(iteration + 1, dtype))
        return tf.sqrt(second_moment / correction) + self.epsilon

    def second_moment(self, before: tf.Tensor, square: tf.Tensor) -> tf.Tensor:
        """Return v_s = v_{s−1} + (1 − β₂)(g_s² − v_{s−1}), shape (..., D)."""
        return before + (square - before) * (1 - tf.cast(self.beta_2, before.dtype))

    def update(self, before: Carried, gradient: StepGradient, rates: Rates) -> Carried:
        """Return θ_s + Δθ_s, m_s and v_s; see :meth:`Law.update`."""
        dtype, step = before.theta.dtype, rates.iteration + 1
        share, following = self._share(step, dtype), self._share(step + 1, dtype)
        product = tf.reduce_prod(self._share(tf.range(1, step + 1), dtype))
        momentum = before.momentum + (gradient.value - before.momentum) * (1 - self.memory)
        square = self.second_moment(before.second_moment, gradient.square)
        ahead = (
            following / (1 - product * following) * momentum + (1 - share) / (1 - product) * gradient.value
        )
        divisor = root(square / (1 - power(self.beta_2, step, dtype))) + self.epsilon
        return Carried(before.theta - rates.learning_rate * ahead / divisor, momentum, square)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
