"""Clocks, peak memory, and the speed of the machine."""

import os
import platform
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from experiments.benchmarks.tasks import Task, fit


class StepClock(keras.callbacks.Callback):
    """Seconds per step of one fit, without its first steps, which fill the shuffle buffer and may trace."""

    def __init__(self, skip: int = 1) -> None:
        super().__init__()
        self._skip = skip
        self._start = self._end = 0.0
        self._steps = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Start the clock at the first step that counts."""
        if batch == self._skip:
            self._start = time.perf_counter()
            self._steps = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the time after the last step so far."""
        self._steps += 1
        self._end = time.perf_counter()

    @property
    def seconds_per_step(self) -> float:
        """Mean over the steps that count."""
        return (self._end - self._start) / self._steps


class PlainTraining:
    """Plain ``fit`` of a task, timed repeatedly: the unit in which attribution is measured."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._model = task.model(is_recorded=False)
        fit(self._model, task.dataset, 2)  # traces the training step

    def seconds_per_step(self, steps: int) -> float:
        """Train for some more steps and return the seconds of one step."""
        clock = StepClock()
        fit(self._model, self._task.dataset, steps + 1, clock)
        return clock.seconds_per_step


def reset_peak() -> None:
    """Reset the process' peak memory (Linux only; elsewhere the peak counts from the process' start)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_megabytes() -> float:
    """Return the largest resident memory of this process since its start or :func:`reset_peak`, VmHWM."""
    return _memory("VmHWM")


def resident_megabytes() -> float:
    """Return the resident memory of this process, VmRSS."""
    return _memory("VmRSS")


def _memory(field: str) -> float:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    (line,) = [line for line in status.splitlines() if line.startswith(field)]
    return int(line.split()[1]) * 1024 / 1e6


def machine() -> dict[str, Any]:
    """Return facts about the machine and the versions."""
    return {
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "gemm_gflops_float32": round(_gemm_gflops(), 1),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "processor": platform.machine(),
    }


def _gemm_gflops(size: int = 2048, repeats: int = 5) -> float:
    a, b = tf.random.normal((size, size)), tf.random.normal((size, size))
    tf.matmul(a, b)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        float(tf.matmul(a, b)[0, 0])
        seconds.append(time.perf_counter() - start)
    return float(2 * size**3 / np.median(seconds) / 1e9)
