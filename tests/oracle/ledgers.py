"""The entries of a ledger: the terms of the theorem, one by one."""

from dataclasses import dataclass

import numpy as np

from tests.oracle.derivatives import derivative
from tests.oracle.losses import Measure
from tests.oracle.optimizers import WrittenOut
from tests.oracle.training import Training

# Gauss–Legendre nodes for each step. The models are analytic and steps are short, so this is exact to rounding.
NODES = 8


def path_gradient(
    training: Training | WrittenOut, x: np.ndarray, measure: Measure, step: int, nodes: int = NODES
) -> np.ndarray:
    """Return Φ_s(x) = ∫₀¹ ∂f/∂θ (x; θ_s + tΔθ_s) dt, shape (inputs, O, D), by Gauss–Legendre."""
    start, end = training.theta[step], training.theta[step + 1]
    total = 0.0
    for abscissa, weight in zip(*np.polynomial.legendre.leggauss(nodes), strict=True):
        point = start + (1 + abscissa) / 2 * (end - start)
        rows = derivative(lambda theta: measure(training.network.outputs(theta, x)), point)
        total = total + weight / 2 * rows
    return np.asarray(total)


@dataclass(frozen=True)
class Ledger:
    """The entries of a ledger over N steps, with O measurements an input.

    Attributes
    ----------
    initial, final : np.ndarray
        The measurement before and after training, shape (inputs, O).
    data : np.ndarray
        Shape (inputs, O, training rows, layers, use steps N, effect steps N).
    weight_decay : np.ndarray
        Shape (inputs, O, layers, N).
    phi : np.ndarray
        Φ_s, shape (N, inputs, O, D).
    """

    initial: np.ndarray
    final: np.ndarray
    data: np.ndarray
    weight_decay: np.ndarray
    phi: np.ndarray

    @property
    def movement(self) -> float:
        """Largest change of any output of any input, from before to after training."""
        return float(np.abs(self.final - self.initial).max())

    def of_outputs(self, columns: slice) -> "Ledger":
        """Return the ledger of a slice of the O measurements."""
        initial, final, data, weight_decay = (
            array[:, columns] for array in (self.initial, self.final, self.data, self.weight_decay)
        )
        return Ledger(initial, final, data, weight_decay, self.phi[:, :, columns])


def ledger(training: Training | WrittenOut, rows: int, x: np.ndarray, measure: Measure) -> Ledger:
    """Return every entry of the ledger of ``measure(outputs)`` on the inputs x.

    Parameters
    ----------
    training : Training or WrittenOut
        The run.
    rows : int
        Number of training samples.
    x : np.ndarray
        Inputs, shape (inputs, ...).
    measure : callable
        ``outputs (inputs, ...) -> (inputs, O)``, analytic.
    """
    network, steps = training.network, len(training)
    initial = measure(network.outputs(training.theta[0], x))
    final = measure(network.outputs(training.theta[-1], x))
    layers = [network.weights_of(layer) for layer in network.layers]
    data = np.zeros((*initial.shape, rows, len(layers), steps, steps))
    weight_decay = np.zeros((*initial.shape, len(layers), steps))
    phi = np.stack([path_gradient(training, x, measure, step) for step in range(steps)])
    for effect in range(steps):
        for layer, own in enumerate(layers):
            weight_decay[:, :, layer, effect] = phi[effect][:, :, own] @ training.decay[effect][own]
        for use in range(effect + 1):
            pushed = phi[effect] * training.influence(use, effect)
            for row, gradient in zip(training.batches[use].rows, training.gradients[use], strict=True):
                for layer, own in enumerate(layers):
                    data[:, :, row, layer, use, effect] += pushed[:, :, own] @ gradient[own]
    return Ledger(initial, final, data, weight_decay, phi)
