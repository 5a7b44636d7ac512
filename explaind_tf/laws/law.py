"""Displacement laws: how one optimizer step moves the weights, as pure functions.

Every law here is linear in the gradients. Its momentum m and its displacement are sums over causes::

    m_s  = memory · m_{s−1} + gain_s · g_s
    Δθ_s = decay_s + pull_s ⊙ m_s + direct_s · g_s + rounding

g_s is the gradient that the update used: clipped, and averaged over accumulated batches if there are any. All vectors
are flat, of shape (D,), where D is the number of trainable weights. Quantities that are not linear in the gradients (the
second moment, clipping factors) have their values from training.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import tensorflow as tf

# Rounding error of the sum from which a gradient is recovered, in units in the last place.
_ROUNDINGS = 4


@dataclass(frozen=True)
class StepFactors:
    """The coefficients of one step of a law.

    Attributes
    ----------
    gain : float
        What a unit of gradient adds to the momentum.
    pull : tf.Tensor
        How far a unit of momentum moves a weight, shape (D,) or ().
    direct : float
        How far a unit of gradient moves a weight without the momentum (Nesterov).
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
class UsedGradient:
    """The gradient that an update used, recovered from the variables before and after it.

    Attributes
    ----------
    value : np.ndarray
        Shape (D,).
    rounding : np.ndarray
        Bound of the rounding error of each element, shape (D,).
    """

    value: np.ndarray
    rounding: np.ndarray


class Law(Protocol):
    """What the ledger needs to know of an optimizer.

    A law is a frozen dataclass with this class as a base. Its fields are its constants, floats or bools. It does not
    import Keras.
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
        """Whether a gradient also moves the weights directly, not only through the momentum."""

    @abstractmethod
    def momentum(self, momentum: tf.Tensor, gradient: tf.Tensor, learning_rate: float) -> tf.Tensor:
        """Return m_s of shape (D,) from m_{s−1} and g_s, both of shape (D,)."""

    @abstractmethod
    def factors(self, second_moment: tf.Tensor | None, learning_rate: float, iteration: int) -> StepFactors:
        """Return the coefficients of a step from its recorded values."""

    def divisor(self, second_moment: tf.Tensor | None, iteration: int) -> tf.Tensor | None:
        """Return what a step divides a steady gradient by, shape (D,), or None if it depends on no gradient."""
        return None

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
            If constants are missing, unknown or no numbers.
        ValueError
            If one is out of range.
        """
        types = {field.name: field.type for field in _fields(cls)}
        return cls(**{key: _constant(key, value, types.get(key)) for key, value in constants.items()})

    def used_gradient(
        self, before: Moments, after: Moments, mask: np.ndarray, learning_rate: float, iteration: int
    ) -> UsedGradient | None:
        """Return the gradient that an update used, recovered from the change of the momentum.

        Without a momentum it is recovered from the weights. In both cases the part that does not come from the gradient
        is known and subtracted. Subtracting it amplifies rounding by the ratio of the two parts.

        Parameters
        ----------
        before, after : Moments
            Around the update.
        mask : np.ndarray
            w, shape (D,): one where the weight is decayed, zero where it is excluded.
        learning_rate : float
            η of the update.
        iteration : int
            Updates before it.

        Returns
        -------
        UsedGradient or None
            None if the update left no trace of its gradient, as SGD with a learning rate of 0 does.
        """
        theta, dtype = before.theta, before.theta.dtype
        second_moment = None if after.second_moment is None else tf.constant(after.second_moment)
        factors = self.factors(second_moment, learning_rate, iteration)
        if after.momentum is None:
            # Without momentum, the whole gradient is in the displacement.
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
        value = (reached - kept) / unit.astype(dtype)
        return UsedGradient(value, _ROUNDINGS * np.finfo(dtype).eps * np.abs(start / unit.astype(dtype)))


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
    """Return a recorded number in a dtype, without the cast through float32 that a Python float takes."""
    return tf.cast(tf.convert_to_tensor(value, tf.float64), dtype)


def _fields(law: Any) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(law)


def _constant(name: str, value: Any, kind: Any) -> float | bool:
    """Return a constant in the type of its field; the law's constructor refuses unknown ones."""
    number = float(value)
    if kind is not bool:
        return number
    if number not in (0.0, 1.0):
        raise ValueError(f"{name} must be 0 (false) or 1 (true); found {value!r}")
    return bool(number)
