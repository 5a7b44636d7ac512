"""`CheckpointRun`: a series of checkpoints that answers questions as far as checkpoints allow."""

from explaind_tf.attribution.attributable import Attributable
from explaind_tf.kernel.derivatives.derivatives import Precisions
from explaind_tf.replay.checkpoint_replay import CheckpointReplay
from explaind_tf.runs.series import CheckpointSeries


class CheckpointRun(CheckpointSeries, Attributable):
    """A series of checkpoints; see :func:`explaind_tf.open_checkpoints`."""

    def _replay(self, precisions: Precisions, tolerance: float) -> CheckpointReplay:
        return CheckpointReplay(self, precisions.analysed.model.dtype.as_numpy_dtype)
