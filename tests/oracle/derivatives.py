"""Derivatives by complex steps."""

from collections.abc import Callable

import numpy as np

# Truncation error is O(h²) and nothing is subtracted, so h may be this small. Derivatives are exact to rounding.
_COMPLEX_STEP = 1e-30


def derivative(function: Callable[[np.ndarray], np.ndarray], theta: np.ndarray) -> np.ndarray:
    """Return ∂f/∂θ, shape (*f, D), one weight at a time: Im f(θ + i h e_j) / h."""
    columns = []
    for j in range(len(theta)):
        nudged = theta.astype(np.complex128)
        nudged[j] += 1j * _COMPLEX_STEP
        columns.append(function(nudged).imag / _COMPLEX_STEP)
    return np.stack(columns, axis=-1)
