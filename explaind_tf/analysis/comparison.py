"""Compares the predictions of two models by their outputs."""

import numpy as np


def same_class(outputs: np.ndarray, others: np.ndarray) -> float:
    """Return the share of inputs for which two models predict the same class.

    Parameters
    ----------
    outputs, others : np.ndarray
        Logits or log-probabilities, shape (inputs, classes).

    Returns
    -------
    float
        Between 0 and 1.
    """
    return float((outputs.argmax(axis=1) == others.argmax(axis=1)).mean())


def divergence(outputs: np.ndarray, others: np.ndarray) -> float:
    """Return the mean over inputs of KL(softmax(outputs) ‖ softmax(others)).

    Computed in float64 from log-probabilities, so classes of vanishing probability do no harm.

    Parameters
    ----------
    outputs, others : np.ndarray
        Logits or log-probabilities, shape (inputs, classes).

    Returns
    -------
    float
        In nats; 0 if the two agree, and negative only by rounding.
    """
    log_p, log_q = (_log_softmax(values.astype(np.float64)) for values in (outputs, others))
    return float((np.exp(log_p) * (log_p - log_q)).sum(axis=1).mean())


def _log_softmax(outputs: np.ndarray) -> np.ndarray:
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
