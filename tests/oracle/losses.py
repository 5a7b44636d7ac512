"""Losses of samples, and measurements of outputs."""

from collections.abc import Callable

import numpy as np

# outputs (batch, O), targets -> (batch,)
Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]
# outputs (inputs, ...) -> (inputs, O), analytic
Measure = Callable[[np.ndarray], np.ndarray]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return the log-softmax over the last axis; the shift is real and constant, so complex steps pass through."""
    shifted = logits - logits.real.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def log_prob(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the log-probability of one class for each input, shape (batch, 1): a measurement."""
    return log_softmax(outputs)[np.arange(len(outputs)), classes][:, None]


def crossentropy(outputs: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the sparse categorical crossentropy of each sample from logits, shape (batch,)."""
    return -log_prob(outputs, classes)[:, 0]


def squared_error(outputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the squared error of each sample, averaged over the outputs, shape (batch,)."""
    difference = outputs - targets
    return (difference * difference).mean(axis=-1)
