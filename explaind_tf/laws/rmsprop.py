"""The law of RMSprop, with and without momentum."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class RMSpropLaw(Law):
    """The displacement of ``keras.optimizers.RMSprop`` that is not centered.

    With ``keras/src/optimizers/rmsprop.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        v_s     = ρ v_{s−1} + (1 − ρ) g_s²
        d_s     = √(v_s + ε)
        Δθ_s    = decay_s − η_s g_s / d_s                        without momentum
        m_s     = μ m_{s−1} + η_s g_s / d_s,  Δθ_s = decay_s − m_s

    v_s is taken from the record. Gradients are divided before they enter the momentum. So a sample's influence is scaled by
    learning rate and divisor of its use step, whose batch held it.

    Parameters
    ----------
    momentum_share : float
        μ, the argument ``momentum`` of the Keras optimizer.
    epsilon, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    momentum_share: float
    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "RMSprop"
    divides_by_second_moment: ClassVar[bool] = True

    @property
    def memory(self) -> float:
        """Share μ of the momentum that survives a step."""
        return self.momentum_share

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain η_s / d_s and pull −1."""
        root = self.divisor(before, after, iteration)
        one = tf.ones((), root.dtype)
        return StepFactors(exact_cast(learning_rate, root.dtype) / root, -one, 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return d_s, shape (D,): the size of recent gradients, and ε."""
        return tf.sqrt(self._square(after) + self.epsilon)

    def _square(self, after: Moments) -> tf.Tensor:
        """Return d_s² without ε, shape (D,)."""
        return tf.constant(after.second_moment)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)


@dataclass(frozen=True)
class CenteredRMSpropLaw(RMSpropLaw):
    """The displacement of ``keras.optimizers.RMSprop(centered=True)``.

    As :class:`RMSpropLaw`, with the average ḡ_s of the gradients, which is taken from the record like v_s::

        ḡ_s = ρ ḡ_{s−1} + (1 − ρ) g_s
        d_s = √(v_s − ḡ_s² + ε)
    """

    name: ClassVar[str] = "CenteredRMSprop"
    vectors: ClassVar[tuple[str, ...]] = ("average_gradient",)

    def _square(self, after: Moments) -> tf.Tensor:
        second_moment = tf.constant(after.second_moment)
        average = exact_cast(after.further["average_gradient"], second_moment.dtype)
        return second_moment - tf.square(average)
