"""The law of SGD, with and without momentum."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf

from explaind_tf.laws.carried import Carried, Rates, StepGradient
from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay


@dataclass(frozen=True)
class SGDLaw(Law):
    """The displacement of ``keras.optimizers.SGD``, with the learning rate inside the velocity.

    With ``keras/src/optimizers/sgd.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        m_s     = μ m_{s−1} − η_s g_s
        Δθ_s    = decay_s + m_s                      plain (μ = 0) or heavy-ball momentum
        Δθ_s    = decay_s + μ m_s − η_s g_s          Nesterov

    A sample's influence is therefore scaled by the learning rate of its use step, whose batch held it.

    Parameters
    ----------
    momentum_share : float
        μ, the argument ``momentum`` of the Keras optimizer.
    nesterov : bool
        Whether momentum is Nesterov's. Without momentum it has no effect.
    weight_decay : float
        λ, 0 for none.
    """

    momentum_share: float
    nesterov: bool
    weight_decay: float

    name: ClassVar[str] = "SGD"
    divides_by_second_moment: ClassVar[bool] = False

    @property
    def memory(self) -> float:
        """Share μ of the velocity that survives a step, rounded to float32 as Keras rounds a Python float."""
        return float(np.float32(self.momentum_share))

    @property
    def looks_ahead(self) -> bool:
        """Whether momentum is Nesterov's."""
        return self.nesterov and self.momentum_share > 0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain −η_s, pull 1 (Nesterov: μ) and direct 0 (Nesterov: −η_s)."""
        if self.looks_ahead:
            return StepFactors(-learning_rate, tf.constant(self.memory, tf.float64), -learning_rate)
        return StepFactors(-learning_rate, tf.constant(1.0, tf.float64), 0.0)

    def update(self, before: Carried, gradient: StepGradient, rates: Rates) -> Carried:
        """Return θ_s + Δθ_s and m_s; see :meth:`Law.update`."""
        moved = -rates.learning_rate * gradient.value
        if not self.momentum_share:
            return before._replace(theta=before.theta + moved)
        momentum = self.momentum_share * before.momentum + moved
        ahead = self.momentum_share * momentum + moved if self.nesterov else momentum
        return before._replace(theta=before.theta + ahead, momentum=momentum)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
