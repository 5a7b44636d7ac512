"""A training run in NumPy, in the way that Keras trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import numpy as np

from tests.oracle.derivatives import derivative
from tests.oracle.losses import Loss
from tests.oracle.networks import Network


def through_float32(value: float) -> float:
    """Round as TensorFlow does when it casts a Python float to a float64 tensor."""
    return float(np.float32(value))


def cosine_decay(initial: float, decay_steps: int, alpha: float, step: int) -> float:
    """Learning rate of ``keras.optimizers.schedules.CosineDecay`` without warm-up.

    It is computed in the precision of ``initial``. Keras uses float32 for a Python float and float64 for a ``np.float64``.
    """
    real = np.float64 if isinstance(initial, np.float64) else np.float32
    done = real(min(step, decay_steps)) / real(decay_steps)
    cosine = real(0.5) * (real(1) + np.cos(real(pi) * done))
    return float(real(initial) * (real(1 - alpha) * cosine + real(alpha)))


@dataclass(frozen=True)
class AdamW:
    """The constants of ``keras.optimizers.AdamW``."""

    weight_decay: float
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-7


@dataclass(frozen=True)
class Batch:
    """The samples of one step, as rows of the training set, and their weights in the same order."""

    rows: Sequence[int]
    weights: Sequence[float]


@dataclass(frozen=True)
class Training:
    """A training run of N steps over D weights.

    Attributes
    ----------
    theta : np.ndarray
        θ_s before step s, and after the last one, shape (N + 1, D).
    momentum, second_moment, preconditioner : np.ndarray
        m_s, v_s and the diagonal of P_s, shape (N, D).
    decay : np.ndarray
        The displacement −η_s λ w⊙θ_s, shape (N, D).
    gradients : list of np.ndarray
        For each step, ω_k ∇ℓ_k(θ_s) of the batch's K samples in order, shape (K, D).
    """

    network: Network
    law: AdamW
    batches: Sequence[Batch]
    theta: np.ndarray
    momentum: np.ndarray
    second_moment: np.ndarray
    preconditioner: np.ndarray
    decay: np.ndarray
    gradients: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.batches)

    def influence(self, use: int, effect: int) -> np.ndarray:
        """Return how far a unit of the gradient of one step moves the weights in another, shape (D,)."""
        share = (1 - self.law.beta_1) * self.law.beta_1 ** (effect - use)
        return -share * self.preconditioner[effect]


def sample_gradient(
    network: Network, loss: Loss, theta: np.ndarray, x: np.ndarray, y: np.ndarray
) -> np.ndarray:
    """Return ∇ℓ of one sample (a batch of one), shape (D,)."""
    return derivative(lambda point: loss(network.outputs(point, x), y)[0], theta)


def squared_row_gradients(
    network: Network, loss: Loss, theta: np.ndarray, x: np.ndarray, y: np.ndarray, scale: float
) -> np.ndarray:
    """Return what one sample adds to g² in the second moment of an embedding, shape (D,); zero elsewhere.

    Keras gets the gradient of a table as one slice for each occurrence of a token. It squares the slices *before* it adds
    those of one token (``keras/src/optimizers/adam.py::update_step`` on ``tf.IndexedSlices``, by
    ``backend/tensorflow/sparse.py::elementwise_unary``). So the second moment of an embedding is not that of its gradient.
    Here each position of the sample gets a token of its own, and so its own gradient.
    """
    total = np.zeros(network.size)
    if network.embedding is None:
        return total
    values = network.unflatten(theta)
    rows = values[network.embedding][x[0]]
    positions = np.arange(len(rows))[None]

    def loss_of_rows(flat: np.ndarray) -> np.ndarray:
        table = {network.embedding: flat.reshape(rows.shape)}
        return loss(network.forward(values | table, positions), y)[0]

    slices = scale * derivative(loss_of_rows, rows.reshape(-1)).reshape(rows.shape)
    squares = network.unflatten(total)[network.embedding]  # a view: additions to it are additions to `total`
    for token, gradient in zip(x[0], slices, strict=True):
        squares[token] += gradient**2
    return total


def train(
    network: Network,
    loss: Loss,
    law: AdamW,
    theta: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    batches: Sequence[Batch],
    learning_rates: Sequence[float],
) -> Training:
    """Train as Keras does in float64: gradients, weight decay, then Adam with ε added to the uncorrected √v."""
    momentum, second_moment = np.zeros_like(theta), np.zeros_like(theta)
    thetas, history = [theta], []
    for step, (batch, learning_rate) in enumerate(zip(batches, learning_rates, strict=True)):
        gradients = np.zeros((len(batch.rows), network.size))
        squared_rows = np.zeros(network.size)
        for k, (row, weight) in enumerate(zip(batch.rows, batch.weights, strict=True)):
            sample, target, scale = x[row : row + 1], y[row : row + 1], weight / len(batch.rows)
            gradients[k] = scale * sample_gradient(network, loss, theta, sample, target)
            squared_rows += squared_row_gradients(network, loss, theta, sample, target, scale)
        gradient = gradients.sum(axis=0)
        squared_gradient = np.where(network.is_embedding(), squared_rows, gradient**2)
        # Python floats that Keras casts to tensors lose bits. Those that it multiplies by do not.
        decay = -theta * network.decay_mask() * through_float32(law.weight_decay) * learning_rate
        correction_1 = 1 - through_float32(law.beta_1) ** (step + 1)
        correction_2 = 1 - through_float32(law.beta_2) ** (step + 1)
        momentum = momentum + (gradient - momentum) * (1 - law.beta_1)
        second_moment = second_moment + (squared_gradient - second_moment) * (1 - law.beta_2)
        rate = learning_rate * np.sqrt(correction_2) / correction_1
        preconditioner = rate / (np.sqrt(second_moment) + law.epsilon)
        theta = theta + decay - preconditioner * momentum
        thetas.append(theta)
        history.append((momentum, second_moment, preconditioner, decay, gradients))
    momenta, second_moments, preconditioners, decays, gradients_by_step = zip(*history, strict=True)
    return Training(
        network,
        law,
        batches,
        np.stack(thetas),
        np.stack(momenta),
        np.stack(second_moments),
        np.stack(preconditioners),
        np.stack(decays),
        list(gradients_by_step),
    )
