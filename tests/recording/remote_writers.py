"""Processes that write runs to an object store, say what they keep, and are killed.

Those that do not compute with TensorFlow are forked from a process that has imported it, as the import takes longer than
what they do. Those that compute are started anew: in a forked process TensorFlow may wait without end.
"""

import multiprocessing
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from upath import UPath

import explaind_tf as xtf
from explaind_tf.recording.observing.batches import StepBatch
from explaind_tf.recording.writing import places
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.fingerprints import NO_NUMBER, Fingerprints
from explaind_tf.runs.format.description import RunDescription
from tests.helpers import batches, fit
from tests.object_store import use
from tests.recording.test_remote import make_model

# Steps that a process may keep before it is killed, and how long after the last of them, in seconds.
MOST_KEPT, LONGEST_WAIT = 6, 0.25

LONGEST_START = 300.0

Target = Callable[..., None]


def opened(url: UPath | Path) -> RecordedRun:
    """Open a run that may be cut short."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RecordedRun(url)


def write_step(writer: RunWriter, source: RecordedRun) -> None:
    """Write the next step of a run, from its first step again after its last, with the samples of its batch."""
    recorded = source.step_store.recorded(writer.step_count % len(source.step_store))
    samples = [source.samples.read(int(row)) for row in recorded.rows]
    inputs, targets = source.samples.take_flat(recorded.rows)
    hashed: Future[Fingerprints] = Future()
    values = np.array([sample.fingerprint for sample in samples], np.int64)
    hashed.set_result(Fingerprints(values, np.full(len(values), NO_NUMBER), None))
    rows = writer.write_samples(StepBatch(inputs, targets, [], hashed, None))
    writer.write_step(replace(recorded, step=writer.step_count, rows=rows, sample_count=writer.sample_count))


def begun(url: UPath, source: RecordedRun) -> RunWriter:
    """Return a writer of a new run, or one that continues the run that is there."""
    if (url / "manifest.json").exists():
        writer = RunWriter.reopen(opened(url))
        writer.open_shards()
        return writer
    writer = RunWriter.create(url, clear_begun=True)
    shutil.copytree(source.run_dir / "graphs", writer.graphs_dir)
    description = {field.name: getattr(source.manifest, field.name) for field in fields(RunDescription)}
    writer.begin(RunDescription(**description), every=1, environment={}, start=source.step_store.start)
    return writer


def write(url: str, noted: Path, source_dir: Path) -> None:
    """Write the steps of a run again and again, and note how many are kept."""
    source = opened(source_dir)
    writer = begun(UPath(url), source)
    while True:
        write_step(writer, source)
        note(noted, writer.step_count - writer.pending_steps)


def train(url: str, noted: Path, _: Path) -> None:
    """Record a training, and note how many steps are kept."""

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            note(noted, logger.kept_steps)

    logger = xtf.PathLogger(url, resume=True, verbose=False)
    fit(make_model(), logger.tap(batches()), logger, Note(), epochs=10_000)


def note(noted: Path, kept: int) -> None:
    """Write down a number, as a whole."""
    scratch = noted.with_suffix(".part")
    scratch.write_text(str(kept))
    scratch.replace(noted)


def kept(noted: Path) -> int:
    """Return the number that was last noted."""
    return int(noted.read_text()) if noted.exists() else 0


def _run(target: Target, endpoint: str, *arguments: Any) -> None:
    use(pytest.MonkeyPatch(), endpoint)
    places.UPLOAD_BYTES = 1500  # some steps at once
    target(*arguments)


def kill_one(
    target: Target, endpoint: str, url: UPath, noted: Path, source_dir: Path, chance: random.Random
) -> int:
    """Start a process, kill it at a random moment, and return how many steps it said to be kept."""
    context = multiprocessing.get_context("forkserver" if target is write else "spawn")
    if target is write:
        context.set_forkserver_preload([__name__])
    latest = time.monotonic() + LONGEST_START
    wanted = kept(noted) + chance.randrange(MOST_KEPT)
    process = context.Process(target=_run, args=(target, endpoint, str(url), noted, source_dir))
    process.start()
    assert process.pid is not None
    while kept(noted) < wanted or not noted.exists():
        assert process.is_alive(), process.exitcode
        assert time.monotonic() < latest, "it neither ended nor kept a step"
        time.sleep(0.002)
    time.sleep(chance.uniform(0, LONGEST_WAIT))
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    process.close()
    return kept(noted)


def check(url: UPath, announced: int, source: RecordedRun | None) -> RecordedRun:
    """Open a run and check that it holds what was announced, and that every byte is as it was written."""
    url.fs.invalidate_cache()
    run = opened(url)
    assert len(run.step_store) >= announced, (len(run.step_store), announced)
    run.verify_files()
    for step in range(len(run.step_store)) if source is not None else ():
        wanted = source.step_store.recorded(step % len(source.step_store)).known.theta
        np.testing.assert_array_equal(run.step_store.recorded(step).known.theta, wanted)
    return run
