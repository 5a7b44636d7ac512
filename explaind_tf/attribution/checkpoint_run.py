"""`CheckpointRun`: a series of checkpoints that answers questions as far as checkpoints allow."""

from explaind_tf.attribution.run import Attributable
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.replay.checkpoint_replay import CheckpointReplay
from explaind_tf.runs.series import CheckpointSeries


class CheckpointRun(CheckpointSeries, Attributable):
    """A series of checkpoints; see :func:`explaind_tf.open_checkpoints`."""

    def _replay(self, derivatives: Derivatives, tolerance: float) -> CheckpointReplay:
        return CheckpointReplay(self)
