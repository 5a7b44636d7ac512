"""One step of an optimizer as a function that can be differentiated: of all that a step carries to the next one.

The displacement laws (:mod:`explaind_tf.laws.law`) hold the second moment and the clipping factors as training had them.
What would have happened with other gradients depends on how these change, too. Here nothing is held fixed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf


class Carried(NamedTuple):
    """What an optimizer carries from one step to the next, tensors of shape (..., D).

    Attributes
    ----------
    theta : tf.Tensor
        θ.
    momentum, second_moment : tf.Tensor
        m and v, of the shape (0,) where the optimizer has none.
    """

    theta: tf.Tensor
    momentum: tf.Tensor
    second_moment: tf.Tensor


class StepGradient(NamedTuple):
    """The gradient that a step uses.

    Attributes
    ----------
    value : tf.Tensor
        g, shape (..., D).
    square : tf.Tensor
        What Keras adds to the second moment for g², shape (..., D). Of a sparse gradient, as embeddings have, it squares
        each occurrence of a row before it adds them.
    """

    value: tf.Tensor
    square: tf.Tensor


class Rates(NamedTuple):
    """The numbers of a step: learning rate η and weight decay λ, of a shape (..., 1), and the updates before it, ()."""

    learning_rate: tf.Tensor
    weight_decay: tf.Tensor
    iteration: tf.Tensor


@dataclass(frozen=True)
class Clipping:
    """How gradients are clipped.

    Attributes
    ----------
    sizes : tuple of int
        Number of weights of each variable.
    value : float or None
        Limit of each element.
    by_norm : bool
        Whether they are clipped by their norm.
    """

    sizes: tuple[int, ...]
    value: float | None
    by_norm: bool

    def clip(self, gradient: StepGradient, limits: tf.Tensor, is_global: tf.Tensor) -> StepGradient:
        """Return the clipped gradient.

        Parameters
        ----------
        gradient : StepGradient
            The gradient.
        limits : tf.Tensor
            The norm to which each variable's gradient was clipped, shape (variables,); 0 where it was not.
        is_global : tf.Tensor
            Whether the norm is that of all variables together, a boolean of shape ().
        """
        if self.value is not None:
            value = tf.clip_by_value(gradient.value, -self.value, self.value)
            return StepGradient(value, tf.square(value))
        if not self.by_norm:
            return gradient
        # The norm of a sparse gradient is that of its occurrences, as their squares are.
        squares = [tf.reduce_sum(part, axis=-1) for part in tf.split(gradient.square, self.sizes, axis=-1)]
        norms = tf.stack(squares, axis=-1)
        norms = tf.where(
            is_global, tf.reduce_sum(norms, axis=-1, keepdims=True) + tf.zeros_like(norms), norms
        )
        is_clipped = limits > 0
        factors = tf.where(is_clipped, limits * tf.math.rsqrt(tf.where(is_clipped, norms, 1.0)), 1.0)
        wide = tf.repeat(factors, self.sizes, axis=-1)
        return StepGradient(gradient.value * wide, gradient.square * tf.square(wide))


# Of what is carried, with decayed weights, a gradient, and the numbers of a step.
Update = Callable[[Carried, StepGradient, Rates], Carried]


def take_step(
    update: Update, before: Carried, gradient: StepGradient, rates: Rates, decay_mask: tf.Tensor
) -> Carried:
    """Return what an optimizer carries after a step with a clipped gradient, in the order of Keras.

    θ decays first, by η_s λ w ⊙ θ_s (``base_optimizer.py::_apply_weight_decay``).
    """
    decayed = before.theta * (1.0 - rates.learning_rate * rates.weight_decay * decay_mask)
    return update(before._replace(theta=decayed), gradient, rates)


def root(square: tf.Tensor) -> tf.Tensor:
    """Return √square, whose derivative is taken to be 0 where it is 0: there, no gradient has been seen."""
    is_positive = square > 0
    return tf.where(is_positive, tf.sqrt(tf.where(is_positive, square, 1.0)), 0.0)


def power(base: float, exponent: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return base to a power, rounded as Keras rounds a Python float."""
    return tf.pow(tf.cast(base, dtype), tf.cast(exponent, dtype))
