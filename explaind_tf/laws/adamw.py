"""The law of AdamW, and of Adam without decay."""

from dataclasses import dataclass
from typing import ClassVar

import tensorflow as tf

from explaind_tf.laws.law import Law, StepFactors, decoupled_decay, exact_cast


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

    @property
    def looks_ahead(self) -> bool:
        """False: gradients move the weights only through the momentum."""
        return False

    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return m_s = m_{s−1} + (1 − β₁)(g_s − m_{s−1}), shape (D,)."""
        return momentum + (gradient - momentum) * (1 - self.beta_1)

    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain 1 − β₁ and pull −P_s.

        Parameters
        ----------
        second_moment : tf.Tensor
            v_s, shape (D,), as the optimizer left it *after* the step.
        learning_rate : float
            η_s: the value that Keras used in the step.
        iteration : int
            The optimizer's ``iterations`` before the step (0 for the first one).
        """
        assert second_moment is not None  # as divides_by_second_moment says
        dtype = second_moment.dtype
        # Keras casts a Python float to float32 before float64, and so does tf.cast.
        step = tf.cast(iteration + 1, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        rate = exact_cast(learning_rate, dtype) * tf.sqrt(correction_2) / correction_1
        return StepFactors(1 - self.beta_1, -rate / (tf.sqrt(second_moment) + self.epsilon), 0.0)

    def divisor(self, second_moment: tf.Tensor | None, iteration: int) -> tf.Tensor | None:
        """Return (√v_s + ε) / √(1 − β₂ᵗ), shape (D,): the size of recent gradients, and ε."""
        assert second_moment is not None
        dtype = second_moment.dtype
        correction = 1 - tf.pow(tf.cast(self.beta_2, dtype), tf.cast(iteration + 1, dtype))
        return (tf.sqrt(second_moment) + self.epsilon) / tf.sqrt(correction)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)
