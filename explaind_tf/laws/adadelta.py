"""The law of Adadelta."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class AdadeltaLaw(Law):
    """The displacement of ``keras.optimizers.Adadelta``, which has no momentum.

    With ``keras/src/optimizers/adadelta.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        v_s     = ρ v_{s−1} + (1 − ρ) g_s²
        δ_s     = √(x_{s−1} + ε) / √(v_s + ε) ⊙ g_s
        x_s     = ρ x_{s−1} + (1 − ρ) δ_s²
        Δθ_s    = decay_s − η_s δ_s

    v_s and x_{s−1} are taken from the record.

    Parameters
    ----------
    epsilon, weight_decay : float
        The arguments of the Keras optimizer; a decay of 0 for none.
    """

    epsilon: float
    weight_decay: float

    name: ClassVar[str] = "Adadelta"
    divides_by_second_moment: ClassVar[bool] = True
    vectors: ClassVar[tuple[str, ...]] = ("accumulated_delta_var",)

    @property
    def memory(self) -> float:
        """0: there is no momentum."""
        return 0.0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 and pull −η_s √(x_{s−1} + ε) / √(v_s + ε)."""
        root = self.divisor(before, after, iteration)
        moved = tf.sqrt(exact_cast(before.further["accumulated_delta_var"], root.dtype) + self.epsilon)
        return StepFactors(1.0, -exact_cast(learning_rate, root.dtype) * moved / root, 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return √(v_s + ε), shape (D,): the size of recent gradients, and ε."""
        return tf.sqrt(tf.constant(after.second_moment) + self.epsilon)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
