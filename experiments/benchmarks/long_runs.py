"""Parts for long and large runs: memory and time of recording, opening and asking, as steps, samples and layers grow.

All take and return plain JSON values. Each must run in a process of its own: the memory of a process tells nothing about
one of its parts otherwise.
"""

import gc
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import explaind_tf as xtf
from experiments.benchmarks.settings import Json
from experiments.benchmarks.timing import peak_megabytes, reset_peak, resident_megabytes
from explaind_tf.cli.run_facts import run_facts

# Steps before memory is compared: Keras and TensorFlow have allocated what they keep.
_SETTLED = 1000
_WIDTH = 8
# Blocks of a branch: Keras builds models by recursion, and Python ends it at a depth of a thousand.
_DEEPEST = 200


class MemoryProbe(keras.callbacks.Callback):
    """Notes the resident memory of this process after some steps of a fit."""

    def __init__(self, steps: int, probes: int) -> None:
        super().__init__()
        settled = min(_SETTLED, steps // 2)
        self._at = set(np.linspace(settled, steps, probes, dtype=int).tolist())
        self._steps = 0
        self.found: dict[int, float] = {}

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Note the memory if this step is one of the chosen ones."""
        self._steps += 1
        if self._steps in self._at:
            gc.collect()
            self.found[self._steps] = resident_megabytes()


def deep_model(layers: int, outputs: int = 1) -> keras.Model:
    """Return a model of about so many layers, each with few weights: branches of blocks with residual connections."""
    inputs = keras.Input((_WIDTH,))
    blocks = max(1, (layers - 2) // 2)
    branches = [_branch(inputs, count) for count in _parts(blocks, _DEEPEST)]
    hidden = branches[0] if len(branches) == 1 else keras.layers.Add()(branches)
    return keras.Model(inputs, keras.layers.Dense(outputs)(hidden))


def _branch(hidden: Any, blocks: int) -> Any:
    for _ in range(blocks):
        block = keras.layers.Dense(_WIDTH, activation="tanh", kernel_initializer="zeros")(hidden)
        hidden = keras.layers.Add()([hidden, block])
    return hidden


def _parts(count: int, most: int) -> list[int]:
    """Return a number as a sum of such that are at most ``most``."""
    return [min(most, count - first) for first in range(0, count, most)]


def _data(count: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((count, _WIDTH), np.float32)
    return x, x[:, :1] ** 2


def record_long(run_dir: str, *, steps: int, batch: int, layers: int = 4, probes: int = 11) -> Json:
    """Record the training of a small model on samples that all differ, and note the memory as it goes.

    Parameters
    ----------
    run_dir : str
        New directory.
    steps, batch : int
        Steps, and samples of each.
    layers : int
        Layers of the model.
    probes : int
        How often memory is read, from the first thousand steps on.
    """
    x, y = _data(steps * batch)
    keras.utils.set_random_seed(0)
    model, probe = deep_model(layers), MemoryProbe(steps, probes)
    model.compile(xtf.PathAdamW(1e-4), loss="mse")
    logger = xtf.PathLogger(run_dir, verbose=False)
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch, shuffle=False, verbose=0, callbacks=[logger, probe])
    seconds = time.perf_counter() - start
    files = [path for path in Path(run_dir).rglob("*") if path.is_file()]
    return {
        "layers": len(model.layers),
        "seconds": seconds,
        "resident_mb": list(probe.found.values()),
        "peak_mb": peak_megabytes(),
        "files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
    }


def open_long(run_dir: str, *, repeats: int = 5) -> Json:
    """Open a run several times, and note seconds and memory; the first time imports what opening needs."""
    before = resident_megabytes()
    reset_peak()
    seconds = []
    run = None
    for _ in range(1 + repeats):
        run = None  # frees the one before
        gc.collect()
        start = time.perf_counter()
        run = xtf.open_run(run_dir)
        seconds.append(time.perf_counter() - start)
    assert run is not None
    return {
        "steps": len(run.steps),
        "samples": len(run.samples),
        "before_mb": before,
        "resident_mb": resident_megabytes(),
        "peak_mb": peak_megabytes(),
        "first_seconds": seconds[0],
        "seconds": seconds[1:],
    }


def ask_long(run_dir: str, *, steps: int) -> Json:
    """Ask a run for its facts, and for a ledger by sample over its last steps."""
    run = xtf.open_run(run_dir)
    opened = resident_megabytes()
    start = time.perf_counter()
    facts = run_facts(run)
    info_seconds, informed = time.perf_counter() - start, resident_megabytes()
    x, _ = _data(2)
    start = time.perf_counter()
    # The last steps of a long training move predictions by little more than the rounding of the weights.
    ledger = run.attribute(
        x,
        xtf.measurements.outputs(),
        axes=("sample",),
        steps=slice(-steps, None),
        tolerance=2e-2,
        progress=False,
    )
    ledger.explaind.check()
    return {
        "samples": facts["samples"],
        "opened_mb": opened,
        "info_seconds": info_seconds,
        "informed_mb": informed,
        "attribute_seconds": time.perf_counter() - start,
        "attributed_mb": resident_megabytes(),
    }
