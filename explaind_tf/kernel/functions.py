"""A model as the kernel sees it: pure functions of its variables, which form the flat point z = (θ, u)."""

import functools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.points import Point, unpack

Tensors = Sequence[tf.Tensor]
# variables, constants, inputs, targets, weights, scales
Losses = Callable[[Tensors, Tensors, Tensors, Tensors, Tensors, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class PureModel:
    """A model and a measurement as functions of their variables.

    The variables are the trainable weights θ, then the floating-point state u (BatchNorm statistics). Flattened and
    concatenated they form the point z of shape (Z,), whose first D elements are θ. Everything else that a call depends
    on is in ``constants`` (seed states, integers).

    Attributes
    ----------
    measure : callable
        ``(variables, constants, inputs, targets) -> (batch, O)``; row i depends on input i alone.
    losses : callable
        ``(variables, constants, inputs, targets, weights, scales) -> (batch,)``: what each sample adds to the loss of
        its batch. ``scales``, of shape (L,), holds all factors that depend on the batch as a whole. With them, a part
        of a batch can be evaluated on its own.
    loss_scales : callable
        ``(variables, constants, inputs, targets, weights) -> (L,)``: the scales of a whole batch.
    regularizer : callable or None
        ``(variables, constants, inputs) -> scalar``: penalties besides the losses, which may depend on the batch.
    trained, state : tuple of tf.TensorSpec
        Signatures of the variables.
    constants, inputs, measure_targets, loss_targets, loss_weights : tuple of tf.TensorSpec
        Signatures; batch dimensions are None.
    losses_and_state : callable or None
        Takes the arguments of ``losses`` and returns the losses and the state that training leaves: a list of a tensor for
        each variable that is not trained, in the order of the manifest.
    moving : tuple of bool
        Which of this state is a part of the point.
    token_losses : callable or None
        Takes the arguments of ``losses`` and returns (batch, positions): what each position of a sample adds, if it has
        several.
    coarsest_eps : float or None
        Unit in the last place of the least precise numbers that the functions compute with; None for that of the weights.
    measure_key, losses_key : hashable or None
        Equal for models whose measurement, or whose losses, compute the same; None if that is not known.
    """

    measure: Callable[[Tensors, Tensors, Tensors, Tensors], tf.Tensor]
    losses: Losses
    loss_scales: Callable[[Tensors, Tensors, Tensors, Tensors, Tensors], tf.Tensor]
    regularizer: Callable[[Tensors, Tensors, Tensors], tf.Tensor] | None
    trained: tuple[tf.TensorSpec, ...]
    state: tuple[tf.TensorSpec, ...]
    constants: tuple[tf.TensorSpec, ...]
    inputs: tuple[tf.TensorSpec, ...]
    measure_targets: tuple[tf.TensorSpec, ...]
    loss_targets: tuple[tf.TensorSpec, ...]
    loss_weights: tuple[tf.TensorSpec, ...] = ()
    token_losses: Losses | None = None
    losses_and_state: Callable[..., tuple[tf.Tensor, list[tf.Tensor]]] | None = None
    moving: tuple[bool, ...] = ()
    coarsest_eps: float | None = None
    measure_key: Hashable | None = None
    losses_key: Hashable | None = None

    @property
    def dtype(self) -> tf.DType:
        """Dtype of the point: that of the first weight."""
        return self.trained[0].dtype

    @property
    def eps(self) -> float:
        """Unit in the last place of the least precise numbers that the functions compute with."""
        return self.coarsest_eps or float(np.finfo(self.dtype.as_numpy_dtype).eps)

    @property
    def sizes(self) -> list[int]:
        """Number of elements of each variable."""
        return [spec.shape.num_elements() for spec in (*self.trained, *self.state)]

    @property
    def theta_size(self) -> int:
        """D."""
        return sum(self.sizes[: len(self.trained)])

    @property
    def point_size(self) -> int:
        """Z."""
        return sum(self.sizes)

    def unpack(self, point: tf.Tensor) -> list[tf.Tensor]:
        """Return the variables of a point z."""
        return unpack(point, (*self.trained, *self.state))

    def at(self, point: tf.Tensor) -> Point:
        """Return a point z, ready to be differentiated by."""
        return Point(self.unpack(point), self.dtype, self.unpack)


@dataclass(frozen=True)
class Batch:
    """Training samples of one step, their sample weights (if any), and the losses' scales, shape (L,)."""

    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    weights: list[np.ndarray]
    scales: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, start: int, stop: int) -> "Batch":
        """Return consecutive samples with the scales of the whole batch."""
        return self.take(slice(start, stop))

    def take(self, which: slice | np.ndarray) -> "Batch":
        """Return some of the samples, by slice or positions, with the scales of the whole batch."""
        inputs, targets, weights = (
            [array[which] for array in arrays] for arrays in (self.inputs, self.targets, self.weights)
        )
        return Batch(inputs, targets, weights, self.scales)


class TrainingPoint(NamedTuple):
    """A batch, and the point and constants at which it was used in training."""

    point: np.ndarray | tf.Tensor
    constants: list[np.ndarray]
    batch: Batch

    def part(self, start: int, stop: int) -> "TrainingPoint":
        """Return consecutive samples with the scales of the whole batch."""
        return self._replace(batch=self.batch.part(start, stop))


@dataclass(frozen=True)
class StepPath:
    """The straight path of one step: z(t) = start + t · displacement.

    ``end`` is the recorded end point; it may differ from ``start + displacement`` in the last bit.
    """

    start: np.ndarray
    end: np.ndarray
    displacement: np.ndarray
    constants: list[np.ndarray]

    @functools.cached_property
    def line(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Start and displacement as tensors. A step uses them many times, and each use would copy the arrays."""
        return tf.constant(self.start), tf.constant(self.displacement)


@dataclass(frozen=True)
class Block:
    """Some of the inputs, which are measured together."""

    inputs: list[np.ndarray]
    targets: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, which: slice | np.ndarray) -> "Block":
        """Return some of the inputs, by slice or positions."""
        return Block([a[which] for a in self.inputs], [a[which] for a in self.targets])
