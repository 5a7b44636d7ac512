"""A batch of training, computed again from the exported functions: its losses and their gradient."""

import math

import keras
import numpy as np
import tensorflow as tf

from explaind_tf.laws.used_gradients import Arithmetic, measured_rounding
from explaind_tf.recording.exporting.pure_functions import PureFunctions
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.loaded import LossFunctions


class BatchReplay:
    """A batch of training, computed again from exported functions.

    Parameters
    ----------
    functions : PureFunctions or LossFunctions
        The functions.
    batch : StepBatch
        The batch.
    variables : list of keras.Variable
        The trainable variables.
    before : Snapshot
        Weights and state before the step.
    loss_scale : float
        What the loss is multiplied by before its gradient is taken.

    Attributes
    ----------
    sizes : list of int
        Number of weights of each variable.
    """

    def __init__(
        self,
        functions: PureFunctions | LossFunctions,
        batch: StepBatch,
        variables: list[keras.Variable],
        before: Snapshot,
        loss_scale: float,
    ) -> None:
        self._functions, self._count, self._loss_scale = functions, len(batch), loss_scale
        self.sizes = [math.prod(v.shape) for v in variables]
        self._theta = [
            piece.reshape(v.shape) for piece, v in zip(self.by_variable(before.theta), variables, strict=True)
        ]
        self._inputs = [*before.state, *batch.inputs]
        self._samples = [*self._inputs, *batch.targets, *batch.weights]
        self._scales = functions.loss_scales(*self._theta, *self._samples)[0]

    def by_variable(self, vector: np.ndarray) -> list[np.ndarray]:
        """Return the parts of a vector (D,) that belong to each variable, flat."""
        return np.split(vector, np.cumsum(self.sizes)[:-1])

    def losses(self) -> np.ndarray:
        """Return the loss of each sample: shape (batch,) if losses can be split over samples."""
        return self._functions.sample_losses(*self._theta, *self._samples, self._scales)[0].numpy()

    def gradient(
        self, of_weights: np.ndarray | None = None, of_samples: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the gradient of losses and penalties, shape (D,), for factors of weights (D,) and losses (batch,)."""
        theta = self._theta
        if of_weights is not None:
            pieces = self.by_variable(of_weights)
            theta = [v * p.reshape(v.shape).astype(v.dtype) for v, p in zip(theta, pieces, strict=True)]
        parameters = [tf.constant(value) for value in theta]
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            losses = self._functions.sample_losses(*parameters, *self._samples, self._scales)[0]
            if of_samples is not None:
                losses = losses * tf.constant(of_samples, losses.dtype)
            total = tf.reduce_sum(losses) + self._functions.penalty(*parameters, *self._inputs)[0]
            total = total * tf.constant(self._loss_scale, total.dtype)
        gradients = tape.gradient(total, parameters, unconnected_gradients="zero")
        flat = np.concatenate([tf.convert_to_tensor(g).numpy().reshape(-1) for g in gradients])
        return flat / flat.dtype.type(self._loss_scale)

    def rounding(self, arithmetic: Arithmetic) -> np.ndarray:
        """Return how far rounding may change the gradient, shape (D,)."""
        size = sum(self.sizes)
        return arithmetic.gamma * measured_rounding(self.gradient, self._count, size, 0, arithmetic.eps)
