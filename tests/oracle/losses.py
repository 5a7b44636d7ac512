"""Losses of samples, and measurements of outputs."""

from collections.abc import Callable

import numpy as np

# outputs (batch, O), targets -> (batch,)
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]
# outputs (inputs, ...) -> (inputs, O), analytic
Measure = Callable[[np.ndarray], np.ndarray]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-softmax over the last axis. The shift is real and constant, so the complex step passes through."""
    shifted = logits - logits.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_prob(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Measurement: log-probability of one class for each input, shape (batch, 1)."""
    return log_softmax(outputs)[np.arange(len(outputs)), classes][:, None]


def crossentropy(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Loss of each sample: sparse categorical crossentropy from logits, shape (batch,)."""
    return -log_prob(outputs, classes)[:, 0]


def squared_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Loss of each sample: squared error, averaged over the outputs, shape (batch,)."""
    difference = outputs - targets
    return (difference * difference).mean(axis=-1)
