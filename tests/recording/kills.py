"""Kill recordings at random moments, and check what is left of them.

``python -m tests.recording.kills --kills 50 --resumed 10``
"""

import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import typer

import explaind_tf as xtf
from tests.helpers import CLASSES, X, batches, dense_model, fit, flat, flat_theta

ROOT = Path(__file__).parents[2]
LONGEST_WAIT = 1.5  # seconds of recording

TRAINING = """
import sys
from pathlib import Path
from tests.recording.kills import train

train(Path(sys.argv[1]), Path(sys.argv[2]), epochs=int(sys.argv[3]), every=int(sys.argv[4]))
"""


class Note(keras.callbacks.Callback):
    """Notes the weights of each step once the logger has it."""

    def __init__(self, noted: Path) -> None:
        super().__init__()
        self._file = os.open(noted, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        os.write(self._file, hashlib.sha256(flat(self.model.trainable_variables).tobytes()).digest())

    def on_train_end(self, logs: Any = None) -> None:
        os.close(self._file)


def train(run_dir: Path, noted: Path, epochs: int, every: int) -> None:
    """Begin a recording, or continue it, and note the weights of its steps."""
    keras.utils.set_random_seed(0)
    model = dense_model(keras.layers.Dense(2000, "tanh"), keras.layers.Dense(CLASSES))
    model.compile(xtf.PathAdamW(1e-3), loss="mse")
    logger = xtf.PathLogger(run_dir, every=every, resume=True, verbose=False)
    fit(model, logger.tap(batches()), logger, Note(noted), epochs=epochs)


def start(run_dir: Path, noted: Path, epochs: int, every: int) -> subprocess.Popen[str]:
    """Start a training in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", TRAINING, str(run_dir), str(noted), str(epochs), str(every)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_one(run_dir: Path, noted: Path, seed: int, longest_wait: float = LONGEST_WAIT) -> int:
    """Kill a recording at a random moment, and return how many steps the run holds.

    Raises
    ------
    AssertionError
        If the run lacks a step that was committed, or holds another.
    """
    chance = random.Random(seed)
    process = start(run_dir, noted, epochs=10_000, every=chance.choice([1, 4]))
    while not (run_dir / "manifest.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.002)
    time.sleep(chance.uniform(0, longest_wait))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return check(run_dir, noted)


def check(run_dir: Path, noted: Path) -> int:
    """Compare a run with the weights that a callback noted, and return its number of steps."""
    seen = noted.read_bytes() if noted.exists() else b""
    digests = [seen[i : i + 32] for i in range(0, len(seen), 32)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the run is known to be cut short
        run = xtf.open_run(run_dir)
    # The last step may have been committed but not noted.
    assert len(digests) <= len(run.steps) <= len(digests) + 1, (len(digests), len(run.steps))
    for step, digest in enumerate(digests):
        assert hashlib.sha256(flat_theta(run, step + 1).tobytes()).digest() == digest, step
    run.verify_files()
    return len(run.steps)


def resume_one(run_dir: Path, noted: Path) -> int:
    """Continue a run that was killed, in this process, and return its number of steps afterwards.

    Raises
    ------
    AssertionError
        If its ledger does not balance.
    """
    before = check(run_dir, noted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        every = xtf.open_run(run_dir).manifest.every
    train(run_dir, noted.with_suffix(".resumed"), epochs=3, every=every)
    run = xtf.open_run(run_dir)
    assert run.is_complete
    assert len(run.steps) == before + 9
    run.verify(progress=False)
    run.attribute(X[:3], axes=("step", "sample"), progress=False).explaind.check()
    return len(run.steps)


def main(
    kills: Annotated[int, typer.Option(help="Recordings to kill.")] = 50,
    resumed: Annotated[int, typer.Option(help="How many of these to continue.")] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the random moments.")] = 0,
) -> None:
    """Kill recordings at random moments. Every committed step must be there."""
    with tempfile.TemporaryDirectory() as directory:
        steps = []
        for i in range(kills):
            steps.append(kill_one(Path(directory) / f"run-{i}", Path(directory) / f"noted-{i}", seed + i))
            print(f"killed {i + 1} of {kills}: {steps[-1]} steps", flush=True)
        for i in range(resumed):
            found = resume_one(Path(directory) / f"run-{i}", Path(directory) / f"noted-{i}")
            print(f"resumed {i + 1} of {resumed}: {found} steps, balanced", flush=True)
        print(
            f"{kills} killed, all open, none lost a step (of {int(np.sum(steps))}); {resumed} resumed, all balanced"
        )


if __name__ == "__main__":
    typer.run(main)
