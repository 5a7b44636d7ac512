"""`CheckpointRun`: a series of checkpoints that answers questions, as far as checkpoints can."""

from collections.abc import Iterator

from explaind_tf import constants as names
from explaind_tf.attribution.run import Attributable
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.replay.recorded import Grouping, PathReplay
from explaind_tf.runs.series import CheckpointSeries


class CheckpointReplay(PathReplay):
    """A series of checkpoints as the kernel sees it: what was trained moved, and the state moved."""

    def path_steps(self, first: int, stop: int, *, grouping: Grouping | None = None) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1``, from one checkpoint to the next.

        The displacement of the trainable weights is one cause, for nothing in a checkpoint tells gradients, weight decay
        and callbacks apart; that of the floating-point state (BatchNorm statistics) is another.
        """
        assert grouping is None  # groups were refused when the question was checked
        for step in range(first, stop):
            transition = self.transition(step)
            segment, theta = self.segment(transition), len(transition.theta_start)
            weights, state = segment.displacement.copy(), segment.displacement.copy()
            weights[theta:] = 0
            state[:theta] = 0
            drift = {names.STATE: state} if state.any() else {}
            yield PathStep(step, segment, {names.WEIGHTS: weights, **drift})

    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Return False: both ends of each step are known."""
        return False


class CheckpointRun(CheckpointSeries, Attributable):
    """A series of checkpoints; see :func:`explaind_tf.open_checkpoints`."""

    def _replay(self, derivatives: Derivatives, tolerance: float) -> CheckpointReplay:
        return CheckpointReplay(self)
