"""Were the recorded batches those that trained? The gradient that an update used is held against theirs."""

from collections.abc import Sequence

import numpy as np

from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.laws.used_gradients import Mismatch, find_mismatch
from explaind_tf.replay.batch_gradients import BatchGradients
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.replay.used import RecordedUpdates
from explaind_tf.runs import RecordedRun


class BatchCheck:
    """Compares the gradient that each update used with the one that its recorded batches give.

    Parameters
    ----------
    run : RecordedRun
        The run.
    updates : RecordedUpdates
        What its updates used.
    gradients : BatchGradients
        The gradients of its batches.
    passed : set of int
        The updates that were checked before. Those that pass are added.
    """

    def __init__(
        self, run: RecordedRun, updates: RecordedUpdates, gradients: BatchGradients, passed: set[int]
    ) -> None:
        self._run, self._updates, self._gradients, self._passed = run, updates, gradients, passed

    def check(
        self, update: ReplayedStep, batches: Sequence[ReplayedStep], gradient: np.ndarray | None = None
    ) -> None:
        """Check one update, if it was not checked before.

        Parameters
        ----------
        update : ReplayedStep
            Its step.
        batches : sequence of ReplayedStep
            The steps whose batches it used.
        gradient : np.ndarray, optional
            The sum of their gradients, by all sources, shape (D,), if it was computed already.

        Raises
        ------
        UnbalancedLedgerError
            If the update used another gradient, beyond rounding.
        """
        if update.number in self._passed:
            return
        used = self._updates.gradient(update)
        if used is not None:
            if gradient is None:
                gradient = np.sum([self._gradients.whole(step) for step in batches], axis=0)
            preparation = self._updates.preparation(update.transition)
            start = self._run.step_store.start
            if batches[0].number == 0 and start.accumulated is not None:
                gradient = gradient + start.accumulated
            mismatch = find_mismatch(
                used,
                preparation(gradient),
                self._updates.sizes,
                lambda: preparation.scaled(self._gradients.rounding(batches, as_trained=True)),
            )
            if mismatch is not None:
                raise UnbalancedLedgerError(self._told(update, mismatch))
        self._passed.add(update.number)

    def _told(self, update: ReplayedStep, mismatch: Mismatch) -> str:
        path = self._run.manifest.variables[mismatch.variable].path
        return (
            f"Step {update.number} of {self._run.run_dir} used another gradient than its recorded batch gives: for {path!r} "
            f"they differ by {mismatch.difference:.2g}, and rounding explains {mismatch.allowed:.2g} (Euclidean norms). So "
            f"the batch, a sample weight or a target is not the one that trained: the record was changed. Or something "
            f"changed weights or gradient within the step: a train_step of your own, or a callback that sets weights in "
            f"on_train_batch_begin (set them in on_epoch_begin or on_epoch_end). "
            f"Ledgers that keep no samples, tokens or groups do not use the batches."
        )
