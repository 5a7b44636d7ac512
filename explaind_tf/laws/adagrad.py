"""The law of Adagrad."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.carried import Carried, Rates, StepGradient
from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class AdagradLaw(Law):
    """The displacement of ``keras.optimizers.Adagrad``, which has no momentum.

    With ``keras/src/optimizers/adagrad.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        a_s     = a_{s−1} + g_s²
        Δθ_s    = decay_s − η_s g_s / √(a_s + ε)

    a_s is taken from the record.

    Parameters
    ----------
    epsilon, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "Adagrad"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        """0: there is no momentum."""
        return 0.0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 and pull −η_s / √(a_s + ε)."""
        root = self.divisor(before, after, iteration)
        return StepFactors(1.0, -exact_cast(learning_rate, root.dtype) / root, 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return √(a_s + ε), shape (D,)."""
        return tf.sqrt(tf.constant(after.second_moment) + self.epsilon)

    def update(self, before: Carried, gradient: StepGradient, rates: Rates) -> Carried:
        """Return θ_s + Δθ_s and a_s; see :meth:`Law.update`."""
        square = before.second_moment + gradient.square
        moved = rates.learning_rate * gradient.value / tf.sqrt(square + self.epsilon)
        return Carried(before.theta - moved, before.momentum, square)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
