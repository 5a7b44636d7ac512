"""The measurement of the experiment: log-probabilities of bytes."""

import numpy as np
import tensorflow as tf

from explaind_tf.measurements import Measurement


def weighted_log_prob(outputs: tf.Tensor, y: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the weighted sum over positions of the log-probability of the byte that follows, shape (batch, 1)."""
    each = tf.gather(tf.nn.log_softmax(outputs), y, axis=2, batch_dims=2)
    return tf.reduce_sum(each * weights, axis=1, keepdims=True)


def log_prob(name: str, y: np.ndarray, weights: np.ndarray) -> Measurement:
    """Measure log-probabilities of bytes, in nats.

    All questions use one function, so a run compiles its derivatives once.

    Parameters
    ----------
    name : str
        For the ledger's attributes.
    y : np.ndarray of int, shape (inputs, length)
        The bytes that follow each position.
    weights : np.ndarray, shape (inputs, length)
        Weights of the positions in the sum: all ``1 / length`` for the mean of a window.
    """
    return Measurement(name, weighted_log_prob, (y, weights.astype(np.float32)))
