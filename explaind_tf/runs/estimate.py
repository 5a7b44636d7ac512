"""Estimates of the disk space and time that a run takes, from the sizes of its first records."""

import math
from dataclasses import dataclass, replace
from datetime import timedelta

from rich.filesize import decimal

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.runs.format.step_records import encode_step
from explaind_tf.runs.format.training_step import LEFT_OUT, NO_WEIGHTED_STEP
from explaind_tf.runs.reader import RecordedRun
from explaind_tf.runs.storage.records import FRAME_BYTES
from explaind_tf.runs.storage.tf_example import Buffers

# Attribution of one recorded step costs as much as this many training steps: for few and for many measurements
# (experiments/benchmarks).
_STEPS_A_STEP = (2, 8)
# Most seconds that a timedelta can show: millions of years.
_LONGEST = timedelta.max.total_seconds() // 2


@dataclass(frozen=True)
class Seconds:
    """Seconds per step: to train it, and to record it."""

    training: float
    recording: float


@dataclass(frozen=True)
class Estimate:
    """Bytes of a run that is not recorded yet.

    Attributes
    ----------
    keyframe, between : int
        Bytes of a step's record with all weights, and of one without.
    samples : int
        Bytes of the distinct samples, if no sample appears in more than one form (augmentation).
    graphs : int
        Bytes of the model's functions and of the manifest.
    training : int
        Bytes of the training step. It is stored if keyframes are more than one step apart.
    steps : int
        Number of steps of the run.
    every : int
        Steps from one keyframe to the next.
    keeps_training : bool
        Whether the training step is stored in any case, to train again with other weights of samples.
    frozen : int
        Bytes of the state that never moves, such as frozen weights. Only the first record holds it.
    """

    keyframe: int
    between: int
    samples: int
    graphs: int
    training: int
    steps: int
    every: int = 1
    keeps_training: bool = False
    frozen: int = 0

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
        fixed = self.graphs + self.frozen + (self.training if self.every > 1 or self.keeps_training else 0)
        return fixed + self.samples + self.keyframes * self.keyframe + notes * self.between

    def fit_into(self, budget: int) -> "Estimate":
        """Return the estimate with the most frequent keyframes that fit into a number of bytes.

        Raises
        ------
        RefusedError
            If not even a keyframe at the start and one at the end fit.
        """
        low, high = 1, self.steps  # fewer keyframes never take more
        least = replace(self, every=high).total
        if least > budget:
            raise RefusedError(
                f"{self.steps:,} steps take {decimal(least)} with no keyframe between the first and the last. This is more "
                f"than the {decimal(budget)} that they may take. Record to another disk, or give a larger disk_budget."
            )
        while low < high:
            middle = (low + high) // 2
            if replace(self, every=middle).total <= budget:
                high = middle
            else:
                low = middle + 1
        return replace(self, every=low)

    def attribution_seconds(self, seconds: Seconds) -> tuple[float, float]:
        """Return the seconds that one question to the run takes, for few and for many measurements."""
        again = 0 if self.every == 1 else 1
        few, many = (self.steps * seconds.training * (factor + again) for factor in _STEPS_A_STEP)
        return few, many


def estimate_from(run: RecordedRun, steps: int, samples: int | None = None) -> Estimate:
    """Return the estimate of a longer run of the same model and data, with every step a keyframe.

    Parameters
    ----------
    run : RecordedRun
        A short run of at least one step.
    steps : int
        Number of steps of the longer run.
    samples : int, optional
        Number of distinct samples that the longer run will use. Default: as many as the short run.

    Raises
    ------
    RefusedError
        If the short run has no whole step.
    """
    if not len(run.steps):
        raise RefusedError(
            f"{run.run_dir} has no whole step to estimate a longer run from. Record two or three steps."
        )
    step = run.step_store.step(0)
    training = sum(f.size for f in run.manifest.graphs if f.file.startswith(f"{constants.TRAINING_DIR}/"))
    graphs = sum(f.size for f in run.manifest.graphs) - training
    keyframe = record_bytes(encode_step(step, run.run_id, run.step_store.start.state))
    frozen = record_bytes(encode_step(step, run.run_id)) - keyframe
    return Estimate(
        keyframe=keyframe,
        between=record_bytes(encode_step(step.without_snapshot(), run.run_id)),
        samples=round(run.samples.records.size / max(len(run.samples), 1) * (samples or len(run.samples))),
        graphs=graphs + (run.run_dir / constants.MANIFEST_FILE).stat().st_size,
        training=training or keyframe + frozen + graphs,  # roughly, if the run has no training step
        frozen=frozen,
        steps=steps,
        keeps_training=training > 0 and run.manifest.environment.get(NO_WEIGHTED_STEP) != LEFT_OUT,
    )


def seconds_of(run: RecordedRun) -> Seconds | None:
    """Return the seconds that a step of a run took, None if they were not measured."""
    found = run.manifest.environment.get("seconds_per_step")
    values = [found.get("training"), found.get("recording")] if isinstance(found, dict) else []
    measured = [value for value in values if isinstance(value, float) and 0 <= value < math.inf]
    return Seconds(*measured) if len(measured) == 2 else None


def record_bytes(record: Buffers) -> int:
    """Return the bytes that a record takes in a file."""
    return FRAME_BYTES + sum(len(part) for part in record)


def describe(estimate: Estimate, free: int | None, seconds: Seconds | None) -> str:
    """Return a line that describes an estimate to the user.

    Parameters
    ----------
    estimate : Estimate
        The estimate of the run.
    free : int or None
        Free bytes on the disk, if known.
    seconds : Seconds or None
        Seconds per step, if known.
    """
    distance = "" if estimate.every == 1 else f" (all weights every {estimate.every} steps)"
    line = f"{decimal(int(estimate.per_step))} a step{distance}, {decimal(estimate.total)} for {estimate.steps:,} steps"
    if free is not None:
        line += f", {estimate.total / max(free, 1):.1%} of the free disk"
    if seconds is None:
        return line
    spans = (min(value, _LONGEST) for value in estimate.attribution_seconds(seconds))
    few, many = (timedelta(seconds=round(value)) for value in spans)
    return (
        f"{line}. Recording adds about {seconds.recording / max(seconds.training, 1e-9):.0%} to a training step of "
        f"{seconds.training:.2g} s; a question to the run will take some {few} to {many} (h:mm:ss)"
    )
