"""`CheckpointReplay`: the straight paths between checkpoints, split into weights and state."""

from collections.abc import Iterator

from explaind_tf import constants as names
from explaind_tf.kernel.path_integrals import PathStep
from explaind_tf.replay.path_replay import Grouping, PathReplay


class CheckpointReplay(PathReplay):
    """A series of checkpoints as the kernel needs it: trained weights that moved, and state that moved."""

    def path_steps(self, first: int, stop: int, *, grouping: Grouping | None = None) -> Iterator[PathStep]:
        """Yield the steps ``first … stop − 1``, from one checkpoint to the next.

        The displacement of the trainable weights is one cause: nothing in a checkpoint tells gradients, weight decay and
        callbacks apart. The displacement of the floating-point state (BatchNorm statistics) is another.
        """
        assert grouping is None  # groups were refused when the question was checked
        for number in range(first, stop):
            step = self.step(number)
            theta = len(step.transition.theta_start)
            weights, state = step.path.displacement.copy(), step.path.displacement.copy()
            weights[theta:] = 0
            state[:theta] = 0
            drift = {names.STATE: state} if state.any() else {}
            yield PathStep(number, step.path, {names.WEIGHTS: weights, **drift})

    def needs_history(self, grouping: Grouping | None = None) -> bool:
        """Return False: both ends of each step are known."""
        return False
