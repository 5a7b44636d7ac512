"""Flows: what each source of gradients put into the optimizer, on its way to the weights.

Momentum is linear in the gradients, so it splits as they do: each source has a momentum of its own, and their sum is the
optimizer's.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.kernel.use_rows import Update
from explaind_tf.laws import Law
from explaind_tf.replay.path_replay import Grouping
from explaind_tf.runs.format.step_records import Snapshot


@dataclass
class Flow:
    """One source of gradients: the sum that waits for an update, and its momentum.

    Attributes
    ----------
    waiting, momentum : np.ndarray
        Shape (D,), or (G, D) for a source that is split over groups.
    """

    waiting: np.ndarray
    momentum: np.ndarray

    def receive(self, gradient: np.ndarray) -> None:
        """Add the gradient of a batch."""
        self.waiting = self.waiting + gradient

    def displace(self, law: Law, update: Update, learning_rate: float) -> np.ndarray:
        """Take part in an update and return the displacement, shape of the momentum."""
        dtype = self.momentum.dtype
        gradient = self.waiting * update.scale.astype(dtype)
        self.momentum = law.momentum(tf.constant(self.momentum), tf.constant(gradient), learning_rate).numpy()
        self.waiting = np.zeros_like(self.waiting)
        displacement = self.momentum * update.pull.astype(dtype)
        return displacement + gradient * dtype.type(update.direct) if update.direct else displacement

    def reach(self, momentum: np.ndarray, law: Law, update: Update) -> np.ndarray:
        """Take part in an update that leaves a known momentum, and return the displacement, shape (D,)."""
        dtype = momentum.dtype
        displacement = momentum * update.pull.astype(dtype)
        if update.direct:  # of the gradient, which is what the momentum gained but for its factor
            gained = momentum - self.momentum * dtype.type(law.memory)
            displacement = displacement + gained * dtype.type(update.direct / update.gain)
        self.momentum = momentum
        return displacement


# By term. The samples are always one of them.
Flows = dict[str, Flow]


def flows_at_start(start: Snapshot, *, has_regularizer: bool, grouping: Grouping | None) -> Flows:
    """Return the sources of gradients as they were before the run: samples, regularisers, momentum brought along."""
    zeros = np.zeros_like(start.theta)
    own = zeros if grouping is None else np.zeros((grouping.count, len(zeros)), zeros.dtype)
    flows = {names.DATA: Flow(own, own)}
    if has_regularizer:
        flows[names.REGULARIZER] = Flow(zeros, zeros)
    carried = [zeros if part is None else part for part in (start.accumulated, start.momentum)]
    if any(part.any() for part in carried):
        flows[names.CARRYOVER] = Flow(*carried)
    return flows


def total(vectors: np.ndarray) -> np.ndarray:
    """Return a cause as one vector (D,), whether it is split over groups or not."""
    return vectors.sum(axis=0) if vectors.ndim == 2 else vectors
