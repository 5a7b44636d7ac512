"""Displacement laws: how one optimizer step moves the weights, as pure functions.

Every law here is linear in the gradients, with a momentum m and a displacement that add up from causes::

    m_s  = memory · m_{s−1} + gain_s · g_s
    Δθ_s = decay_s + pull_s ⊙ m_s + direct_s · g_s + rounding

g_s is the gradient that the update was given: clipped, and averaged over accumulated batches where there are any.
All vectors are flat, of shape (D,), D the number of trainable weights. What is not linear in the gradients (the second
moment, clipping factors) is taken as it was in training.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import tensorflow as tf

# Units in the last place that the sum may be off from which a gradient is recovered.
_ROUNDINGS = 4


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


@dataclass(frozen=True)
class Moments:
    """Weights and moments at one end of an update, each of shape (D,).

    Attributes
    ----------
    theta : np.ndarray
        θ.
    momentum, second_moment : np.ndarray or None
        m and v, None where the optimizer keeps none.
    """

    theta: np.ndarray
    momentum: np.ndarray | None
    second_moment: np.ndarray | None


@dataclass(frozen=True)
class RecoveredGradient:
    """The gradient that an update used, as far as its variables tell.

    Attributes
    ----------
    value : np.ndarray
        Shape (D,).
    rounding : float
        Norm of its rounding error.
    """

    value: np.ndarray
    rounding: float


class Law(Protocol):
    """What the ledger needs to know of an optimizer.

    A law is a frozen dataclass whose fields are its constants, floats or bools, and which has this class for a base. It
    imports no Keras.
    """

    name: ClassVar[str]
    divides_by_second_moment: ClassVar[bool]

    @property
    @abstractmethod
    def memory(self) -> float:
        """Share of the momentum that survives a step."""

    @property
    @abstractmethod
    def looks_ahead(self) -> bool:
        """Whether a gradient moves the weights besides through the momentum."""

    @abstractmethod
    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return m_s of shape (D,) from m_{s−1} and g_s, both of shape (D,)."""

    @abstractmethod
    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        """Return the coefficients of a step from what was recorded of it."""

    @abstractmethod
    def decay(self, theta: tf.Tensor, mask: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return the displacement by weight decay, shape (D,)."""

    def to_config(self) -> dict[str, float]:
        """Return the constants as floats: 0 and 1 for false and true."""
        return {field.name: float(getattr(self, field.name)) for field in _fields(type(self))}

    @classmethod
    def from_config(cls, constants: Mapping[str, Any]) -> Self:
        """Return the law with the constants that :meth:`to_config` gave.

        Raises
        ------
        TypeError
            If they are not those of the law, or no numbers.
        ValueError
            If one is out of range.
        """
        types = {field.name: field.type for field in _fields(cls)}
        return cls(**{key: _constant(key, value, types.get(key)) for key, value in constants.items()})

    def recovered_gradient(
        self, before: Moments, after: Moments, mask: np.ndarray, learning_rate: float
    ) -> RecoveredGradient | None:
        """Return the gradient that the first update of a run used, from what it made of the momentum.

        Without a momentum it is recovered from the weights. Both are sums, of which the part that is no gradient's is
        taken away; what is left is rounded by as much as that part is larger.

        Parameters
        ----------
        before, after : Moments
            Around the update.
        mask : np.ndarray
            w, shape (D,): one where the weight is decayed, zero where it is excluded.
        learning_rate : float
            η of the update.

        Returns
        -------
        RecoveredGradient or None
            None if the update shows nothing of its gradient: under a learning rate of 0, SGD remembers nothing.
        """
        theta, dtype = before.theta, before.theta.dtype
        second_moment = None if after.second_moment is None else tf.constant(after.second_moment)
        factors = self.factors(second_moment, learning_rate, 0)
        if after.momentum is None:
            # All of the gradient is in the displacement.
            unit = np.asarray(factors.gain * factors.pull.numpy() + factors.direct)
            start, reached = theta, after.theta
            decay = self.decay(tf.constant(theta), tf.constant(mask), learning_rate)
            kept = theta + decay.numpy()
        else:
            unit = np.asarray(factors.gain)
            start = np.zeros_like(theta) if before.momentum is None else before.momentum
            reached = after.momentum
            kept = self.momentum(tf.constant(start), tf.constant(np.zeros_like(theta)), learning_rate).numpy()
        if not unit.all():
            return None
        rounding = _ROUNDINGS * float(np.finfo(dtype).eps) * float(np.linalg.norm(start))
        return RecoveredGradient((reached - kept) / unit.astype(dtype), rounding / float(np.abs(unit).min()))


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
    return -theta * mask * tf.cast(weight_decay, dtype) * exact_cast(learning_rate, dtype)


def clip_ratio(gradient: tf.Tensor, limit: float) -> tf.Tensor:
    """Return κ_s of ``clipvalue``, shape (D,): the ratio of clipped to unclipped gradient, 0 where the gradient is 0."""
    clipped = tf.clip_by_value(gradient, -limit, limit)
    return tf.math.divide_no_nan(clipped, gradient)


def exact_cast(value: Any, dtype: tf.DType) -> tf.Tensor:
    """Return a recorded number in a dtype, without the detour through float32 that a Python float takes."""
    return tf.cast(tf.convert_to_tensor(value, tf.float64), dtype)


def _fields(law: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(law)


def _constant(name: str, value: Any, kind: Any) -> float | bool:
    """Return a constant as its law wants it; one that the law does not know is left to the law to refuse."""
    number = float(value)
    if kind is not bool:
        return number
    if number not in (0.0, 1.0):
        raise ValueError(f"{name} must be 0 or 1, got {value!r}")
    return bool(number)
