"""The seconds that a recorded step takes."""

import statistics
import time

from explaind_tf.runs.estimate import Seconds

_STEPS_TIMED = 50


class StepClock:
    """Times the first steps of a recording: the training, and the recording after it."""

    def __init__(self) -> None:
        self._steps: list[tuple[float, float]] = []  # seconds of training and of recording
        self._began = self._trained = 0.0

    def __len__(self) -> int:
        """Return the number of executions that were timed."""
        return len(self._steps)

    def begin(self) -> None:
        """Note that an execution begins."""
        self._began = time.perf_counter()

    def trained(self) -> None:
        """Note that the execution has ended and its recording begins."""
        self._trained = time.perf_counter()

    def recorded(self, steps: int) -> bool:
        """Note that the steps of the execution are recorded, and return whether they were timed."""
        if len(self._steps) >= _STEPS_TIMED:
            return False
        taken = max(1, steps)
        recording = time.perf_counter() - self._trained
        self._steps.append(((self._trained - self._began) / taken, recording / taken))
        return True

    def seconds(self) -> Seconds | None:
        """Return the seconds that a step takes, without the first step, which includes tracing."""
        if len(self._steps) < 2:
            return None
        return Seconds(*(statistics.median(part) for part in zip(*self._steps[1:], strict=True)))
