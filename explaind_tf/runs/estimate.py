"""What a run takes on the disk, from the sizes of its first records."""

import math
from dataclasses import dataclass, replace

from explaind_tf.runs.examples import Buffers
from explaind_tf.runs.records import FRAME_BYTES


@dataclass(frozen=True)
class Estimate:
    """Bytes of a run that is not recorded yet.

    Attributes
    ----------
    keyframe, between : int
        Bytes of a step's record with all weights, and of one without.
    samples : int
        Bytes of the distinct samples, if none come up in more than one form (augmentation).
    fixed : int
        Bytes of graphs and manifest.
    steps : int
        Steps of the run.
    every : int
        Steps from one keyframe to the next.
    """

    keyframe: int
    between: int
    samples: int
    fixed: int
    steps: int
    every: int = 1

    @property
    def keyframes(self) -> int:
        """Records with all weights: before training, every K-th step and the last one."""
        return 1 + math.ceil(self.steps / self.every)

    @property
    def per_step(self) -> float:
        """Bytes of a step, on average."""
        return self.keyframe / self.every + self.between * (1 - 1 / self.every)

    @property
    def total(self) -> int:
        """Bytes of the run."""
        notes = self.steps - self.steps // self.every
        return self.fixed + self.samples + self.keyframes * self.keyframe + notes * self.between

    def within(self, budget: int) -> "Estimate | None":
        """Return the estimate with the closest keyframes that fit into a number of bytes; None if none do."""
        low, high = 1, self.steps  # fewer keyframes never take more
        if replace(self, every=max(1, high)).total > budget:
            return None
        while low < high:
            middle = (low + high) // 2
            if replace(self, every=middle).total <= budget:
                high = middle
            else:
                low = middle + 1
        return replace(self, every=low)


def record_bytes(record: Buffers) -> int:
    """Return the bytes that a record takes in a file."""
    return FRAME_BYTES + sum(len(part) for part in record)
