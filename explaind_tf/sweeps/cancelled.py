"""Conditioning: weights for which an update divides by little more than the rounding of its gradient.

AdamW divides the gradient of a weight by the size of its recent gradients. Where these are the small rests of parts that
cancelled, it divides the parts by the size of the rests, too. Entries through such a weight are large, of either sign, and
as uncertain as the rests are. A weight d counts as cancelled in a batch if the rounding N_d of its gradient is more than a
share τ of what the update divides by::

    N_d > τ (√v_d + ε) / √(1 − β₂ᵗ)

Other laws have other divisors, see :meth:`explaind_tf.laws.Law.divisor`. N_d is measured, as
:mod:`explaind_tf.laws.used_gradients` says, and scaled as the update scales the gradient. It is about the unit roundoff
times the sum of the sizes of all parts that were added, be they of several samples or of several positions of one. So
in float32, a weight whose gradients are below 1e-5 of their parts counts as cancelled. One small gradient among larger
ones does not count, since v remembers those. SGD divides by no gradients, so it has no such weights.
"""

import numpy as np

from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.replay.replay import Replay

# τ.
UNCERTAIN = 1e-2


def cancelled_weights(recorded: Replay, batch: ReplayedStep, update: ReplayedStep) -> np.ndarray | None:
    """Return which weights' gradients nearly cancelled in a batch, shape (D,), bool, or None if none can.

    Parameters
    ----------
    recorded : Replay
        The run.
    batch : ReplayedStep
        The step of the batch.
    update : ReplayedStep
        The step in which its gradient was used.
    """
    divisor = recorded.updates.divisor(update)
    if divisor is None:
        return None
    rounding = recorded.updates.preparation(update.transition).scaled(
        recorded.gradients.measured_rounding(batch)
    )
    cancelled: np.ndarray = rounding > UNCERTAIN * divisor
    return cancelled if cancelled.any() else None
