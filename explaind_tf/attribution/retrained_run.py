"""`RetrainedRun`: a recorded training, trained again with other weights of samples."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from explaind_tf.attribution.attributable import Attributable
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.levels import AXES, PATH
from explaind_tf.progress import Progress
from explaind_tf.replay.checkpoint_replay import CheckpointReplay
from explaind_tf.runs import RecordedRun, SampleStore
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.graphs.loaded import ForwardGraph, Graphs
from explaind_tf.runs.retraining import KeptStates, Retrainer
from explaind_tf.runs.samples import SampleId
from explaind_tf.terms import Source

Weights = Mapping[SampleId, float] | Sequence[float] | np.ndarray


class RetrainedRun(Attributable):
    """A training that was repeated with other weights of samples; see :meth:`explaind_tf.Run.retrain`.

    It is held in memory. Its path goes from one kept state to the next, so its steps are those of the training only with
    ``every=1``.

    Parameters
    ----------
    run : RecordedRun
        The run that was trained again.
    weights : np.ndarray
        The weight of each sample, shape (samples,).
    states : dict of int to Snapshot
        The kept weights and state, by the step of the training before which they were.
    compiled : dict
        The compiled derivatives of the run, which are those of this path, too.

    Attributes
    ----------
    weights : np.ndarray
        The weight of each sample, shape (samples,), in the order of ``run.samples.ids``.
    training_steps : np.ndarray
        The step of the training that each point of the path stands before, shape (steps + 1,). The last one is the number of
        steps of the training.
    """

    axes = AXES[PATH]
    source: Source = "checkpoints"

    def __init__(
        self,
        run: RecordedRun,
        weights: np.ndarray,
        states: dict[int, Snapshot],
        compiled: dict[Any, Derivatives],
    ) -> None:
        self._run, self.weights = run, weights
        self._compiled = compiled
        self.training_steps = np.array(sorted(states))
        self.step_store = KeptStates([states[step] for step in sorted(states)], run.step_store.layout)
        digest = hashlib.blake2b(run.run_id.encode() + weights.tobytes(), digest_size=16)
        digest.update(self.training_steps.tobytes())
        self.manifest = replace(
            run.manifest,
            run_id=digest.hexdigest(),
            level=PATH,
            level_reason="It is a training that was repeated from the record, of which only weights and state are kept.",
        )

    @property
    def graphs(self) -> Graphs | ForwardGraph:
        """The model as pure functions."""
        return self._run.graphs

    @property
    def samples(self) -> SampleStore:
        """The training samples."""
        return self._run.samples

    def _replay(self, precisions: Precisions, tolerance: float) -> CheckpointReplay:
        return CheckpointReplay(self, precisions.analysed.model.dtype.as_numpy_dtype)

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} of {str(self._run.run_dir)!r}: {self.training_steps[-1]} steps, "
            f"{int((self.weights != 1).sum())} of {len(self.weights)} samples with another weight than 1>"
        )


def weights_of_samples(samples: SampleStore, weights: Weights | None) -> np.ndarray:
    """Return the weight of each sample, shape (samples,).

    Parameters
    ----------
    samples : SampleStore
        The run's samples.
    weights : mapping, array or None
        By id, with 1 for ids left out; or one for each sample, in the order of ``samples.ids``. None stands for 1.

    Raises
    ------
    ValueError
        If an id is unknown, the number of weights is wrong, or a weight is NaN or infinite.
    """
    ids = samples.ids.tolist()
    found = np.ones(len(ids))
    if isinstance(weights, Mapping):
        positions = {label: position for position, label in enumerate(ids)}
        unknown = [label for label in weights if label not in positions]
        if unknown:
            raise ValueError(
                f"weights names {len(unknown)} samples that the run does not have: {unknown[:3]}. Its {len(ids)} samples "
                f"have the ids of run.samples.ids, which are also the labels of a ledger's samples: {ids[:3]}, …"
            )
        for label, weight in weights.items():
            found[positions[label]] = weight
    elif weights is not None:
        found = np.asarray(weights, np.float64)
        if found.shape != (len(ids),):
            raise ValueError(
                f"weights has the shape {found.shape}; the run has {len(ids)} samples. Give one weight for each, in the "
                f"order of run.samples.ids, or a dict from ids to weights."
            )
    if not np.isfinite(found).all():
        position = int(np.argmin(np.isfinite(found)))
        raise ValueError(
            f"The weight of the sample {ids[position]!r} is {found[position]}. Weights must be finite: 0 leaves a sample "
            f"out, and 1 trains with it as recorded."
        )
    return found


def retrain(
    run: RecordedRun,
    retrainer: Retrainer,
    compiled: dict[Any, Derivatives],
    weights: Weights | None,
    *,
    every: int | None,
    progress: Progress,
) -> RetrainedRun:
    """Train a run again; see :meth:`explaind_tf.Run.retrain`."""
    chosen = weights_of_samples(run.samples, weights)
    steps = len(run.steps)
    distance = steps if every is None else every
    if type(distance) is not int or distance < 1:
        raise ValueError(f"every must be a number of steps, 1 or more, or None; got {every!r}.")
    kept = {*range(0, steps, distance), steps}
    states = retrainer.states(chosen[run.samples.id_of_row], kept, progress)
    return RetrainedRun(run, chosen, states, compiled)
