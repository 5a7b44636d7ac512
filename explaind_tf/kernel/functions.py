"""What the kernel needs to know about a model: pure functions of one flat point z = (θ, u)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

Tensors = Sequence[tf.Tensor]
# z, constants, inputs, targets, weights, scales
Losses = Callable[[tf.Tensor, Tensors, Tensors, Tensors, Tensors, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class PureModel:
    """A model and a measurement as functions of a flat point.

    The point z has shape (Z,): the D trainable weights θ, then the floating-point state u (BatchNorm
    statistics). Everything else a call depends on is in ``constants`` (seed states, integers).

    Attributes
    ----------
    measure : callable
        ``(z, constants, inputs, targets) -> (batch, O)``; row i depends on input i alone.
    losses : callable
        ``(z, constants, inputs, targets, weights, scales) -> (batch,)``: what each sample adds to the loss of
        its batch. ``scales``, of shape (L,), holds all that depends on the batch as a whole, so that a part of a
        batch can be given its factors.
    loss_scales : callable
        ``(z, constants, inputs, targets, weights) -> (L,)``: the scales of a whole batch.
    regularizer : callable or None
        ``(z, constants, inputs) -> scalar``: penalties beside the losses, which may depend on the batch.
    theta_size, point_size : int
        D and Z.
    dtype : tf.DType
        Of z.
    constants, inputs, measure_targets, loss_targets, loss_weights : tuple of tf.TensorSpec
        Signatures; batch dimensions are None.
    token_losses : callable or None
        Of the arguments of ``losses``, ``-> (batch, positions)``: what each position of a sample adds, if it has several.
    """

    measure: Callable[[tf.Tensor, Tensors, Tensors, Tensors], tf.Tensor]
    losses: Losses
    loss_scales: Callable[[tf.Tensor, Tensors, Tensors, Tensors, Tensors], tf.Tensor]
    regularizer: Callable[[tf.Tensor, Tensors, Tensors], tf.Tensor] | None
    theta_size: int
    point_size: int
    dtype: tf.DType
    constants: tuple[tf.TensorSpec, ...]
    inputs: tuple[tf.TensorSpec, ...]
    measure_targets: tuple[tf.TensorSpec, ...]
    loss_targets: tuple[tf.TensorSpec, ...]
    loss_weights: tuple[tf.TensorSpec, ...] = ()
    token_losses: Losses | None = None


@dataclass(frozen=True)
class Batch:
    """Training samples of one step, their weights (none if there were none), and the losses' scales, shape (L,)."""

    inputs: list[np.ndarray]
    targets: list[np.ndarray]
    weights: list[np.ndarray]
    scales: np.ndarray

    def __len__(self) -> int:
        return len(self.inputs[0])

    def part(self, start: int, stop: int) -> "Batch":
        """Return some of the samples with the scales of the whole batch."""
        inputs, targets, weights = (
            [array[start:stop] for array in arrays] for arrays in (self.inputs, self.targets, self.weights)
        )
        return Batch(inputs, targets, weights, self.scales)


@dataclass(frozen=True)
class Segment:
    """The straight path of one step: z(t) = start + t · displacement.

    ``end`` is the recorded end point; it may differ from ``start + displacement`` in the last bit.
    """

    start: np.ndarray
    end: np.ndarray
    displacement: np.ndarray
    constants: list[np.ndarray]


@dataclass(frozen=True)
class Block:
    """Some of the inputs that are measured together."""

    inputs: list[np.ndarray]
    targets: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, which: slice | np.ndarray) -> "Block":
        """Return some of the inputs, by slice or positions."""
        return Block([a[which] for a in self.inputs], [a[which] for a in self.targets])
