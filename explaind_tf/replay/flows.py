"""Flows: the gradients and the momentum of each source of gradients, on their way through the optimizer.

Momentum is linear in the gradients, so it splits as they do. Each source has a momentum of its own, and their sum is the
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
    """One source of gradients: the sum of those that wait for an update, and its momentum.

    Attributes
    ----------
    waiting, momentum : np.ndarray
        Shape (D,) in float64, so that what is left of the recorded momentum is not rounded; or (G, D), in the precision of
        the analysis, for a source split over groups.
    """

    waiting: np.ndarray
    momentum: np.ndarray

    def receive(self, gradient: np.ndarray) -> None:
        """Add the gradient of a batch."""
        self.waiting = self.waiting + gradient

    def displace(self, law: Law, update: Update) -> np.ndarray:
        """Apply an update to this source and return its displacement, of the momentum's shape."""
        dtype = self.momentum.dtype
        gradient = self.waiting * update.scale.astype(dtype)
        self.momentum = law.momentum(tf.constant(self.momentum), tf.constant(gradient), update.gain).numpy()
        self.waiting = np.zeros_like(self.waiting)
        displacement = self.momentum * update.pull.astype(dtype)
        return displacement + gradient * _in(dtype, update.direct) if update.is_direct else displacement

    def reach(self, momentum: np.ndarray, law: Law, update: Update) -> np.ndarray:
        """Apply an update after which the momentum is known, and return the displacement, shape (D,)."""
        dtype = momentum.dtype
        displacement = momentum * update.pull.astype(dtype)
        if update.is_direct:  # acts on the gradient: what the momentum gained, divided by `gain`
            gained = momentum - self.momentum * dtype.type(law.memory)
            displacement = displacement + gained * _in(dtype, update.direct_of_gained())
        self.momentum = momentum
        self.waiting = np.zeros_like(self.waiting)
        return displacement


def _in(dtype: np.dtype, value: float | np.ndarray) -> np.ndarray:
    return np.asarray(value).astype(dtype)


# Flows by term. The samples (`data`) are always one of them.
Flows = dict[str, Flow]


def flows_at_start(start: Snapshot, *, has_regularizer: bool, grouping: Grouping | None) -> Flows:
    """Return the flows before the first step: samples, regularisers, and momentum from before the run.

    With groups there is also what the gradients of the groups leave of the samples' gradient: the rounding.
    """
    zeros = np.zeros(len(start.theta))
    own = zeros if grouping is None else np.zeros((grouping.count, len(zeros)), start.theta.dtype)
    flows = {names.DATA: Flow(own, own)}
    if grouping is not None:
        flows[names.ROUNDING] = Flow(zeros, zeros)
    if has_regularizer:
        flows[names.REGULARIZER] = Flow(zeros, zeros)
    carried = [zeros if part is None else part.astype(float) for part in (start.accumulated, start.momentum)]
    if any(part.any() for part in carried):
        flows[names.CARRYOVER] = Flow(*carried)
    return flows


def total(vectors: np.ndarray) -> np.ndarray:
    """Return a cause as one vector (D,), summed over groups if it is split."""
    return vectors.sum(axis=0) if vectors.ndim == 2 else vectors
