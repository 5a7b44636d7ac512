"""The law of Adafactor."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.law import Law, Moments, StepFactors, decoupled_decay, exact_cast


@dataclass(frozen=True)
class AdafactorLaw(Law):
    """The displacement of ``keras.optimizers.Adafactor``, which has no momentum.

    With ``keras/src/optimizers/adafactor.py::update_step`` and ``t = iteration + 1``, for each variable::

        decay_s = − η_s λ w ⊙ θ_s
        u_s     = g_s / √v_s
        k_s     = max(ε₂, rms(θ_s + decay_s)) / max(1, rms(u_s) / d)
        Δθ_s    = decay_s − min(η_s, 1/√t) k_s u_s

    v_s is taken from the record, where it is the product of the averages over rows and columns. The number k_s of each
    variable is taken from it too: it depends on the gradient, and the weights do not show it.

    Parameters
    ----------
    weight_decay : float
        λ, 0 for none.
    """

    weight_decay: float

    name: ClassVar[str] = "Adafactor"
    divides_by_second_moment: ClassVar[bool] = True
    vectors: ClassVar[tuple[str, ...]] = ("update_scale",)

    @property
    def memory(self) -> float:
        """0: there is no momentum."""
        return 0.0

    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 and pull −min(η_s, 1/√t) k_s / √v_s."""
        root = self.divisor(before, after, iteration)
        dtype = root.dtype
        rate = tf.minimum(exact_cast(learning_rate, dtype), 1 / tf.sqrt(tf.cast(iteration + 1, dtype)))
        return StepFactors(1.0, -rate * exact_cast(after.further["update_scale"], dtype) / root, 0.0)

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor:
        """Return √v_s, shape (D,): the size of recent gradients."""
        return tf.sqrt(tf.constant(after.second_moment))

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
