"""The law of Lion."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay


@dataclass(frozen=True)
class LionLaw(Law):
    """The displacement of ``keras.optimizers.Lion``.

    With ``keras/src/optimizers/lion.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        c_s     = β₁ m_{s−1} + (1 − β₁) g_s
        m_s     = β₂ m_{s−1} + (1 − β₂) g_s
        Δθ_s    = decay_s − η_s sign(c_s)

    sign(c) = c / |c| is linear in the gradients once |c| is held as it was in training, like the second moment of other
    optimizers. c_s follows from m_{s−1} and m_s, which the record has. Written with m_s::

        c_s = β₁/β₂ m_s + (1 − β₁/β₂) g_s

    Where the parts of c_s nearly cancel, they are divided by their small rest. Rounding may even turn its sign.

    Parameters
    ----------
    beta_1, beta_2, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    beta_1: float
    beta_2: float
    weight_decay: float

    name: ClassVar[str] = "Lion"
    divides_by_second_moment: ClassVar[bool] = False
    # However small the momentum has become, the step is as long as before.
    forgets: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.beta_2 < 1:
            raise ValueError(
                f"Lion has beta_2={self.beta_2:g}. Only if beta_2 is between 0 and 1 does the momentum before and after a "
                f"step show what the step used: use such a beta_2."
            )

    @property
    def memory(self) -> float:
        """Share β₂ of the momentum that survives a step, rounded to float32 as Keras rounds a Python float."""
        return float(np.float32(self.beta_2))

    @property
    def looks_ahead(self) -> bool:
        """True: the step and the momentum weigh the gradient differently."""
        return True

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 − β₂, and pull and direct, which both divide by |c_s|; float64."""
        ratio = self._ratio
        step = tf.math.divide_no_nan(
            tf.constant(-learning_rate, tf.float64), self.divisor(before, after, iteration)
        )
        return StepFactors(1 - self.memory, ratio * step, (1 - ratio) * step)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return |c_s|, shape (D,), float64."""
        start, end = (tf.constant(at.momentum, tf.float64) for at in (before, after))
        gradient = (end - self.memory * start) / (1 - self.memory)
        return tf.abs(self._ratio * end + (1 - self._ratio) * gradient)

    @property
    def _ratio(self) -> float:
        """β₁/β₂."""
        return float(np.float32(self.beta_1)) / self.memory

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
