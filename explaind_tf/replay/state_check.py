"""Did the recorded batches lead to the recorded state? Statistics and seeds are held against those that a batch leaves."""

import numpy as np

from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.laws.used_gradients import UNITS
from explaind_tf.replay.batch_gradients import BatchGradients
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.runs import RecordedRun


class StateCheck:
    """Compares the state after each step with the one that training on its batch leaves.

    State that the batch does not change is not compared: something else may set it, such as a ``train_step`` that keeps an
    average of weights. Nor is state that no step left as its batch does: a ``train_step`` may call the model twice.

    Parameters
    ----------
    run : RecordedRun
        The run, of the level ``"sample"``.
    gradients : BatchGradients
        Its batches.
    """

    def __init__(self, run: RecordedRun, gradients: BatchGradients) -> None:
        self._run, self._gradients = run, gradients
        self._agreed: set[int] = set()
        self._differing: dict[int, UnbalancedLedgerError] = {}

    def look_at(self, step: ReplayedStep) -> None:
        """Compare one step. One that was skipped is not: its numbers may not be finite.

        Nor is that of another replica than the first one, whose state is not recorded.
        """
        if not self._run.manifest.state or step.transition.is_skipped:
            return
        if self._run.step_store.recorded(step.number).is_unchanged:
            return
        left = self._gradients.state(step)
        recorded = self._run.step_store.step(step.number).known.state
        changed = [
            place
            for place, start in enumerate(step.transition.state_start)
            if not np.array_equal(left[place], start)
        ]
        differing = [place for place in changed if not _is_close(left[place], recorded[place])]
        if differing:
            self._note_beyond_rounding(step, differing, left, recorded)
        self._agreed.update(set(changed) - set(differing))

    def finish(self) -> None:
        """Refuse state that some steps left as their batches do, and others did not.

        Raises
        ------
        UnbalancedLedgerError
            If the record has another state after a step, beyond rounding.
        """
        for place, error in self._differing.items():
            if place in self._agreed:
                raise error

    def _note_beyond_rounding(
        self,
        step: ReplayedStep,
        differing: list[int],
        left: list[np.ndarray],
        recorded: list[np.ndarray],
    ) -> None:
        rounding = self._gradients.rounding_of_state(step)
        for place in differing:
            difference = float(np.linalg.norm(left[place].astype(np.float64) - recorded[place]))
            allowed = float(np.linalg.norm(rounding[place]))
            if difference <= allowed:  # a NaN is no equality
                self._agreed.add(place)
            elif place not in self._differing:
                path = self._run.manifest.state[place].path
                self._differing[place] = UnbalancedLedgerError(
                    f"Step {step.number} of {self._run.run_dir} left another {path!r} than training on its recorded batch "
                    f"gives: they differ by {difference:.2g}, and rounding explains {allowed:.2g} (Euclidean norms). In "
                    f"other steps they agree. So the batch or the state is not the one of the training: the record was "
                    f"changed. Or something set the state within this step. Ledgers use the state as it is recorded."
                )


def _is_close(left: np.ndarray, recorded: np.ndarray) -> bool:
    """Return whether two states are equal, or differ by no more than the rounding of a sum without cancellation."""
    if np.array_equal(left, recorded):
        return True
    if left.dtype.kind != "f":
        return False
    usual = UNITS * float(np.finfo(left.dtype).eps)
    return float(np.linalg.norm(left - recorded)) <= usual * float(np.linalg.norm(left))
