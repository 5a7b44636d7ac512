"""Displacement laws: how one optimizer step moves the weights, as pure functions.

Every law here is linear in the gradients. Its momentum m and its displacement are sums over causes::

    m_s  = memory · m_{s−1} + gain_s ⊙ g_s
    Δθ_s = decay_s + pull_s ⊙ m_s + direct_s ⊙ g_s + rounding

g_s is the gradient that the update used: clipped, and averaged over accumulated batches if there are any. All vectors
are flat, of shape (D,), where D is the number of trainable weights. Quantities that are not linear in the gradients (the
second moment, clipping factors, the size of a momentum of which only the sign is used) have their values from training.
"""

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.laws.carried import Carried, Rates, StepGradient

# Rounding error of the sum from which a gradient is recovered, in units in the last place.
_ROUNDINGS = 4


@dataclass(frozen=True)
class StepFactors:
    """The coefficients of one step of a law. Those that are the same for all weights are numbers.

    Attributes
    ----------
    gain : float or tf.Tensor
        What a unit of gradient adds to the momentum, a tensor of shape (D,) where it differs.
    pull : tf.Tensor
        How far a unit of momentum moves a weight, shape (D,) or ().
    direct : float or tf.Tensor
        How far a unit of gradient moves a weight without the momentum (Nesterov), a tensor of shape (D,) where it differs.
    """

    gain: float | tf.Tensor
    pull: tf.Tensor
    direct: float | tf.Tensor


@dataclass(frozen=True)
class Moments:
    """Weights and moments at one end of an update, each of shape (D,).

    Attributes
    ----------
    theta : np.ndarray
        θ.
    momentum, second_moment : np.ndarray or None
        m and v, None where the optimizer keeps none.
    further : dict of str to np.ndarray
        What else the law reads, by the names in :attr:`Law.vectors`, of shape (D,), and :attr:`Law.scalars`, of shape ().
    """

    theta: np.ndarray
    momentum: np.ndarray | None
    second_moment: np.ndarray | None
    further: Mapping[str, np.ndarray] = field(default_factory=dict)


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

    Attributes
    ----------
    name : str
        The name under which manifests store the law.
    divides_by_second_moment : bool
        Whether the optimizer keeps a second moment.
    scalars, vectors : tuple of str
        Names of the optimizer's variables that the law reads besides the moments: a number for all weights, or one
        variable for each variable of the model. They are the first ones in ``Snapshot.optimizer``, in this order.
    forgets : bool
        Whether a gradient moves the weights the less the less the momentum remembers of it. It does not if only the sign
        of the momentum counts.
    """

    name: ClassVar[str]
    divides_by_second_moment: ClassVar[bool]
    scalars: ClassVar[tuple[str, ...]] = ()
    vectors: ClassVar[tuple[str, ...]] = ()
    forgets: ClassVar[bool] = True

    @property
    @abstractmethod
    def memory(self) -> float:
        """Share of the momentum that survives a step."""

    @property
    def looks_ahead(self) -> bool:
        """Whether a gradient also moves the weights directly, not only through the momentum."""
        return False

    def momentum(
        self, momentum: tf.Tensor, gradient: tf.Tensor, gain: float | np.ndarray | tf.Tensor
    ) -> tf.Tensor:
        """Return m_s = memory · m_{s−1} + gain ⊙ g_s, shape (D,), from m_{s−1} and g_s, both of shape (D,)."""
        dtype = gradient.dtype
        return momentum * exact_cast(self.memory, dtype) + gradient * exact_cast(gain, dtype)

    @abstractmethod
    def factors(self, before: Moments, after: Moments, learning_rate: float, iteration: int) -> StepFactors:
        """Return the coefficients of a step from its recorded values.

        Parameters
        ----------
        before, after : Moments
            Around the update, as the optimizer left them.
        learning_rate : float
            η_s: the value that Keras used in the step.
        iteration : int
            The optimizer's ``iterations`` before the step (0 for the first one).
        """

    def divisor(self, before: Moments, after: Moments, iteration: int) -> tf.Tensor | None:
        """Return what a step divides a steady gradient by, shape (D,), or None if it depends on no gradient."""
        return None

    def further(self, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> dict[str, np.ndarray]:
        """Return what the law reads besides the moments, from the values of the optimizer's other variables.

        Parameters
        ----------
        arrays : sequence of np.ndarray
            The values. Those that the law reads are the first ones.
        sizes : sequence of int
            Number of weights of each variable of the model.
        """
        left = iter(arrays)
        found = {name: next(left) for name in self.scalars}
        for name in self.vectors:
            found[name] = np.concatenate([np.broadcast_to(next(left).reshape(-1), size) for size in sizes])
        return found

    def second_moment(self, before: tf.Tensor, square: tf.Tensor) -> tf.Tensor | None:
        """Return v_s of v_{s−1} and of what is added for g², shape (..., D); None if the law does not know it."""
        return None

    def update(self, before: Carried, gradient: StepGradient, rates: Rates) -> Carried:
        """Return what is carried after a step, as a function that can be differentiated by all of its arguments.

        Parameters
        ----------
        before : Carried
            What the step before it left, with weights that have decayed already.
        gradient : StepGradient
            The gradient as it is used: averaged over accumulated batches, and clipped.
        rates : Rates
            The numbers of the step.

        Raises
        ------
        RefusedError
            If the law has no such function.
        """
        raise RefusedError(
            f"What would have happened with other weights of samples is not known for {self.name}: its record lacks a "
            f"constant, or its step has no derivative. Train with Adam, AdamW, Adagrad, Nadam or SGD."
        )

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
        factors = self.factors(before, after, learning_rate, iteration)
        gain = np.asarray(factors.gain)
        if after.momentum is None:
            # Without momentum, the whole gradient is in the displacement.
            unit = np.asarray(gain * factors.pull.numpy() + np.asarray(factors.direct))
            start, reached = theta, after.theta
            decay = self.decay(tf.constant(theta), tf.constant(mask), learning_rate)
            kept = theta + decay.numpy()
        else:
            unit = gain
            start = np.zeros_like(theta) if before.momentum is None else before.momentum
            reached = after.momentum
            kept = self.momentum(tf.constant(start), tf.constant(np.zeros_like(theta)), gain).numpy()
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
    """Return a number or vector in a dtype, without the cast through float32 that a Python float takes."""
    if not tf.is_tensor(value) and not isinstance(value, np.ndarray):
        value = tf.convert_to_tensor(value, tf.float64)
    return tf.cast(value, dtype)


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
