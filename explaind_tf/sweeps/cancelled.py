"""Conditioning: which weights' batch gradients nearly cancelled, so that rounding is a part of what is left.

AdamW divides the gradient of a weight by its own size. Where a batch's gradient is the small rest of parts that cancelled,
it divides *these* by the size of the rest, too. Entries through such a weight are large, of either sign, and as uncertain
as the rest is. A weight d counts as cancelled in a batch if rounding may change its gradient by more than a share τ::

    |g_d| < N_d / τ

N_d is measured, as :mod:`explaind_tf.laws.used_gradients` says. It is about the unit roundoff times the sum of the sizes of
all parts that were added, be they of several samples or of several positions of one. So in float32, a gradient below 1e-5 of
its parts counts as cancelled.
"""

import numpy as np

from explaind_tf.replay.batch_gradients import BatchGradients
from explaind_tf.replay.path_replay import ReplayedStep

# τ.
UNCERTAIN = 1e-2


def cancelled_weights(gradients: BatchGradients, step: ReplayedStep) -> np.ndarray:
    """Return which weights' gradients nearly cancelled in the batch of a step, shape (D,), bool.

    Parameters
    ----------
    gradients : BatchGradients
        The gradients of the run's batches.
    step : ReplayedStep
        The step.
    """
    gradient, rounding = gradients.with_rounding(step)
    return (rounding > 0) & (np.abs(gradient) < rounding / UNCERTAIN)
