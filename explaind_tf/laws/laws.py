"""Displacement laws: how one optimizer step moves the weights, as pure functions.

Every law here is linear in the gradients, with a momentum m and a displacement that add up from causes::

    m_s  = memory · m_{s−1} + gain_s · g_s
    Δθ_s = decay_s + pull_s ⊙ m_s + direct_s · g_s + rounding

g_s is the gradient that the update was given: clipped, and averaged over accumulated batches where there are any.
All vectors are flat, of shape (D,), D the number of trainable weights. What is not linear in the gradients (the second
moment, clipping factors) is taken as it was in training.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class StepFactors:
    """The coefficients of one step of a law.

    Attributes
    ----------
    gain : float
        What a unit of gradient adds to the momentum.
    pull : tf.Tensor
        What a unit of momentum moves a weight by, shape (D,) or ().
    direct : float
        What a unit of gradient moves a weight by besides (Nesterov momentum).
    """

    gain: float
    pull: tf.Tensor
    direct: float


class Law(Protocol):
    """What the ledger needs to know of an optimizer."""

    name: ClassVar[str]
    divides_by_second_moment: ClassVar[bool]

    @property
    def memory(self) -> float:
        """Share of the momentum that survives a step."""
        ...

    @property
    def looks_ahead(self) -> bool:
        """Whether a gradient moves the weights besides through the momentum."""
        ...

    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return m_s of shape (D,) from m_{s−1} and g_s, both of shape (D,)."""
        ...

    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        """Return the coefficients of a step from what was recorded of it."""
        ...

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,)."""
        ...

    def to_config(self) -> dict[str, Any]:
        """Return the constants as plain JSON values."""
        ...


@dataclass(frozen=True)
class AdamWLaw:
    """The displacement of ``keras.optimizers.AdamW``.

    In the order of Keras (``keras/src/optimizers/base_optimizer.py::_backend_apply_gradients`` and
    ``adam.py::update_step``), with ``t = iteration + 1``::

        decay_s = − η_s λ w ⊙ θ_s
        v_s     = β₂ v_{s−1} + (1 − β₂) g_s²                 (amsgrad: the largest so far)
        P_s     = diag( η_s √(1 − β₂ᵗ) / (1 − β₁ᵗ) / (√v_s + ε) )
        Δθ_s    = decay_s − P_s m_s

    v_s is the recorded one: for sparse gradients (``Embedding``) Keras squares each occurrence of a row before it
    adds them, so it is not always the square of the summed gradient.

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
        """False: all goes through the momentum."""
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
        assert second_moment is not None  # what divides_by_second_moment says
        dtype = second_moment.dtype
        # Keras casts Python floats through float32 on their way to a float64 tensor; so does tf.cast.
        step = tf.cast(iteration + 1, dtype)
        correction_1 = 1 - tf.pow(tf.cast(self.beta_1, dtype), step)
        correction_2 = 1 - tf.pow(tf.cast(self.beta_2, dtype), step)
        rate = _cast(learning_rate, dtype) * tf.sqrt(correction_2) / correction_1
        return StepFactors(1 - self.beta_1, -rate / (tf.sqrt(second_moment) + self.epsilon), 0.0)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)

    def to_config(self) -> dict[str, Any]:
        """Return the constants as plain JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class SGDLaw:
    """The displacement of ``keras.optimizers.SGD``, the learning rate inside of the velocity.

    With ``keras/src/optimizers/sgd.py::update_step``::

        decay_s = − η_s λ w ⊙ θ_s
        m_s     = μ m_{s−1} − η_s g_s
        Δθ_s    = decay_s + m_s                      plain (μ = 0) or heavy-ball momentum
        Δθ_s    = decay_s + μ m_s − η_s g_s          Nesterov

    A sample's influence is therefore scaled by the learning rate of the step that *used* it.

    Parameters
    ----------
    momentum_share : float
        μ, the argument ``momentum`` of the Keras optimizer.
    nesterov : float
        Whether momentum is Nesterov's, 0 or 1. Without momentum it means nothing.
    weight_decay : float
        λ, 0 for none.
    """

    momentum_share: float
    nesterov: float
    weight_decay: float

    name: ClassVar[str] = "SGD"
    divides_by_second_moment: ClassVar[bool] = False

    @property
    def memory(self) -> float:
        """Share μ of the velocity that survives a step, as Keras' cast from a Python float rounds it: to float32."""
        return float(np.float32(self.momentum_share))

    @property
    def looks_ahead(self) -> bool:
        """Whether momentum is Nesterov's."""
        return bool(self.nesterov) and self.momentum_share > 0

    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return m_s = μ m_{s−1} − η_s g_s, shape (D,)."""
        dtype = gradient.dtype
        return momentum * _cast(self.memory, dtype) - gradient * _cast(learning_rate, dtype)

    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        """Return gain −η_s, pull 1 (Nesterov: μ) and direct 0 (Nesterov: −η_s)."""
        if self.looks_ahead:
            return StepFactors(-learning_rate, tf.constant(self.memory, tf.float64), -learning_rate)
        return StepFactors(-learning_rate, tf.constant(1.0, tf.float64), 0.0)

    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,); see :func:`decoupled_decay`."""
        return decoupled_decay(theta, mask, self.weight_decay, learning_rate)

    def to_config(self) -> dict[str, Any]:
        """Return the constants as plain JSON values."""
        return asdict(self)


_LAWS: dict[str, type[AdamWLaw] | type[SGDLaw]] = {law.name: law for law in (AdamWLaw, SGDLaw)}


def law_from_config(name: str, constants: Mapping[str, Any]) -> Law:
    """Return the law of a name with the constants that its ``to_config()`` gave.

    Raises
    ------
    KeyError
        If there is no law of that name.
    TypeError, ValueError
        If its constants are not those of the law.
    """
    return _LAWS[name](**{key: float(value) for key, value in constants.items()})


def decoupled_decay(
    theta: tf.Tensor, mask: tf.Tensor, weight_decay: float, learning_rate: float
) -> tf.Tensor:
    """Return −η_s λ w ⊙ θ_s, shape (D,) (``base_optimizer.py::_apply_weight_decay``).

    Parameters
    ----------
    theta : tf.Tensor
        θ_s, shape (D,), before the step.
    mask : tf.Tensor
        w, shape (D,): one where the weight is decayed, zero where it is excluded.
    weight_decay : float
        λ.
    learning_rate : float
        η_s.
    """
    dtype = theta.dtype
    return -theta * mask * tf.cast(weight_decay, dtype) * _cast(learning_rate, dtype)


def clip_ratio(gradient: tf.Tensor, limit: float) -> tf.Tensor:
    """Return κ_s of ``clipvalue``, shape (D,): the ratio of clipped to unclipped gradient, 0 where the gradient is 0."""
    clipped = tf.clip_by_value(gradient, -limit, limit)
    return tf.math.divide_no_nan(clipped, gradient)


def _cast(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Return a recorded number in a dtype, without the detour through float32 that a Python float takes."""
    return tf.cast(tf.convert_to_tensor(value, tf.float64), dtype)
