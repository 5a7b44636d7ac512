"""Optimizers of Keras besides AdamW in NumPy, each gradient's part of each displacement written out.

An optimizer's step is a generator's turn: it is sent the weights after decay, the gradient and the learning rate, and yields
the coefficients c_i, shape (steps so far, D), with which the displacement is Σ_i c_i ⊙ g_i. What is not linear in the
gradients has its value from this training.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from tests.oracle.losses import Loss
from tests.oracle.networks import Network
from tests.oracle.training import Batch, sample_gradient, through_float32

# (weights after decay, gradient, learning rate) → coefficients
Steps = Generator[np.ndarray, tuple[np.ndarray, np.ndarray, float], None]
EPSILON = 1e-7


def adam(network: Network, *, amsgrad: bool = False) -> Steps:
    """Adam with its defaults."""
    second, largest, parts, step = 0.0, 0.0, np.zeros((0, network.size)), 0
    coefficients = parts
    while True:
        _, gradient, rate = yield coefficients
        step += 1
        parts = np.concatenate([0.9 * parts, np.full((1, network.size), 1 - 0.9)])
        second = 0.999 * second + (1 - 0.999) * gradient**2
        largest = np.maximum(largest, second) if amsgrad else second
        rate *= np.sqrt(1 - through_float32(0.999) ** step) / (1 - through_float32(0.9) ** step)
        coefficients = -rate * parts / (np.sqrt(largest) + EPSILON)


def adagrad(network: Network) -> Steps:
    """Adagrad with its defaults."""
    squares, coefficients = np.full(network.size, through_float32(0.1)), np.zeros((0, network.size))
    while True:
        _, gradient, rate = yield coefficients
        squares = squares + gradient**2
        coefficients = np.concatenate([0 * coefficients, [-rate / np.sqrt(squares + EPSILON)]])


def rmsprop(network: Network, *, momentum: float = 0.0, centered: bool = False) -> Steps:
    """RMSprop with its defaults, but for the given ones."""
    second, average, parts = 0.0, 0.0, np.zeros((0, network.size))
    while True:
        _, gradient, rate = yield -parts
        second = 0.9 * second + (1 - 0.9) * gradient**2
        average = 0.9 * average + (1 - 0.9) * gradient
        variance = second - average**2 if centered else second
        parts = np.concatenate([momentum * parts, [rate / np.sqrt(variance + EPSILON)]])


def nadam(network: Network) -> Steps:
    """Nadam with its defaults."""
    beta_1, beta_2, schedule = (through_float32(value) for value in (0.9, 0.999, 0.96))
    second, product, parts, step = 0.0, 1.0, np.zeros((0, network.size)), 0
    coefficients = parts
    while True:
        _, gradient, rate = yield coefficients
        step += 1
        share, following = (beta_1 * (1 - 0.5 * schedule**number) for number in (step, step + 1))
        product *= 0.9 * (1 - 0.5 * 0.96**step)
        parts = np.concatenate([beta_1 * parts, np.full((1, network.size), 1 - beta_1)])
        second = second + (gradient**2 - second) * (1 - beta_2)
        estimate = following * parts / (1 - product * following)
        estimate[-1] += (1 - share) / (1 - product)
        coefficients = -rate * estimate / (np.sqrt(second / (1 - beta_2**step)) + EPSILON)


def adamax(network: Network) -> Steps:
    """Adamax with its defaults."""
    largest, parts, step = np.zeros(network.size), np.zeros((0, network.size)), 0
    coefficients = parts
    while True:
        _, gradient, rate = yield coefficients
        step += 1
        parts = np.concatenate([0.9 * parts, np.full((1, network.size), 1 - 0.9)])
        largest = np.maximum(0.999 * largest, np.abs(gradient))
        coefficients = -rate * parts / ((1 - through_float32(0.9) ** step) * (largest + EPSILON))


def adadelta(network: Network) -> Steps:
    """Adadelta with its defaults."""
    second, moved, coefficients = 0.0, np.zeros(network.size), np.zeros((0, network.size))
    while True:
        _, gradient, rate = yield coefficients
        second = 0.95 * second + (1 - 0.95) * gradient**2
        unit = np.sqrt(moved + EPSILON) / np.sqrt(second + EPSILON)
        moved = 0.95 * moved + (1 - 0.95) * (unit * gradient) ** 2
        coefficients = np.concatenate([0 * coefficients, [-rate * unit]])


def lion(network: Network) -> Steps:
    """Lion with its defaults: the sign of c is c divided by its size."""
    beta_1, beta_2 = through_float32(0.9), through_float32(0.99)
    momentum, parts = np.zeros(network.size), np.zeros((0, network.size))
    coefficients = parts
    while True:
        _, gradient, rate = yield coefficients
        direction = beta_1 * momentum + (1 - beta_1) * gradient
        own = np.concatenate([beta_1 * parts, np.full((1, network.size), 1 - beta_1)])
        coefficients = -rate * own / np.abs(direction)
        momentum = beta_2 * momentum + (1 - beta_2) * gradient
        parts = np.concatenate([beta_2 * parts, np.full((1, network.size), 1 - beta_2)])


def adafactor(network: Network) -> Steps:
    """Adafactor with its defaults, one variable after the other."""
    rows: dict[str, np.ndarray | float] = {}
    columns: dict[str, np.ndarray | float] = {}
    coefficients, step = np.zeros((0, network.size)), 0
    while True:
        theta, gradient, rate = yield coefficients
        step += 1
        own, weights = [], network.unflatten(theta)
        memory = 1 - step**-0.8
        for path, slope in network.unflatten(gradient).items():
            squares = slope**2 + 1e-30
            if slope.ndim == 1:
                rows[path] = second = memory * rows.get(path, 0.0) + (1 - memory) * squares
            else:
                rows[path] = memory * rows.get(path, 0.0) + (1 - memory) * squares.mean(axis=-1)
                columns[path] = memory * columns.get(path, 0.0) + (1 - memory) * squares.mean(axis=-2)
                second = (rows[path] / rows[path].mean())[:, None] * columns[path]
            size = max(through_float32(1e-3), _root_mean_square(weights[path]))
            excess = max(1.0, _root_mean_square(slope / np.sqrt(second)))
            scale = min(rate, 1 / np.sqrt(step)) * size / excess
            own.append((-scale / np.sqrt(second)).reshape(-1))
        coefficients = np.concatenate([0 * coefficients, [np.concatenate(own)]])


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


@dataclass(frozen=True)
class WrittenOut:
    """A training run of N steps over D weights, for which ledgers can be written out.

    Attributes
    ----------
    theta : np.ndarray
        θ_s before step s, and after the last one, shape (N + 1, D).
    decay : np.ndarray
        The displacement −η_s λ w⊙θ_s, shape (N, D).
    gradients : list of np.ndarray
        For each step, ω_k ∇ℓ_k(θ_s) of the batch's K samples in order, shape (K, D).
    coefficients : list of np.ndarray
        For each step, what a unit of the gradient of this step and of all before moved each weight, shape (s + 1, D).
    """

    network: Network
    batches: Sequence[Batch]
    theta: np.ndarray
    decay: np.ndarray
    gradients: list[np.ndarray]
    coefficients: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.batches)

    def influence(self, use: int, effect: int) -> np.ndarray:
        """Return how far a unit of the gradient of one step moves the weights in another, shape (D,)."""
        return self.coefficients[effect][use]


def train_by(
    optimizer: Callable[[Network], Steps],
    weight_decay: float,
    network: Network,
    loss: Loss,
    theta: np.ndarray,
    data: tuple[np.ndarray, np.ndarray],
    steps: Sequence[tuple[Batch, float]],
) -> WrittenOut:
    """Train with an optimizer of this module on batches, each with a learning rate. Embeddings are not supported."""
    x, y = data
    state = optimizer(network)
    next(state)
    thetas, decays, gradients, coefficients = [theta], [], [], []
    for batch, rate in steps:
        gradients.append(
            np.stack(
                [
                    weight
                    / len(batch.rows)
                    * sample_gradient(network, loss, theta, x[row : row + 1], y[row : row + 1])
                    for row, weight in zip(batch.rows, batch.weights, strict=True)
                ]
            )
        )
        decays.append(-theta * network.decay_mask() * through_float32(weight_decay) * rate)
        coefficients.append(state.send((theta + decays[-1], gradients[-1].sum(axis=0), rate)))
        moved = sum(own * past.sum(axis=0) for own, past in zip(coefficients[-1], gradients, strict=True))
        theta = theta + decays[-1] + moved
        thetas.append(theta)
    batches = [batch for batch, _ in steps]
    return WrittenOut(network, batches, np.stack(thetas), np.stack(decays), gradients, coefficients)
