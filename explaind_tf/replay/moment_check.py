"""Does the recorded second moment follow from the gradient that the recorded momentum shows?"""

import numpy as np
import tensorflow as tf

from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.laws import Law
from explaind_tf.laws.used_gradients import UNITS
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.replay.used import RecordedUpdates
from explaind_tf.runs import RecordedRun


class MomentCheck:
    """Compares the second moment after each update with the one that its law gives.

    Variables with a sparse gradient are left out: the squares of their occurrences are not recorded. So are optimizers that
    keep more than two moments, as with ``amsgrad=True``: what they record is a maximum.

    Parameters
    ----------
    run : RecordedRun
        The run, of the level ``"sample"``.
    law : Law
        The law of its optimizer. Only if it knows the second moment, there is something to compare.
    updates : RecordedUpdates
        What its updates used.
    derivatives : Derivatives
        The derivatives as trained.
    """

    def __init__(
        self, run: RecordedRun, law: Law, updates: RecordedUpdates, derivatives: Derivatives
    ) -> None:
        self._run, self._law, self._updates, self._derivatives = run, law, updates, derivatives
        self._keeps_more = any(spec.shape and not spec.is_average for spec in run.manifest.optimizer_state)

    def check(self, step: ReplayedStep) -> None:
        """Check one step, if it is an update.

        Raises
        ------
        UnbalancedLedgerError
            If the record has another second moment after the step, beyond rounding.
        """
        transition = step.transition
        recorded = transition.second_moment
        if recorded is None or transition.momentum is None or self._keeps_more:
            return
        used = self._updates.gradient(step)
        start = transition.second_moment_start
        before = tf.constant(np.zeros_like(recorded) if start is None else start)
        if used is None:
            return
        size = np.abs(used.value)
        with np.errstate(over="ignore", invalid="ignore"):
            found, largest = (
                self._law.second_moment(before, tf.square(tf.constant(g.astype(recorded.dtype))))
                for g in (size, size + used.rounding)
            )
            if found is None or largest is None:
                return
            limits = np.finfo(recorded.dtype)
            rounding = UNITS * limits.eps * (before.numpy() + found.numpy()) + limits.tiny
            allowed = largest.numpy() - found.numpy() + rounding
            difference = np.abs(recorded - found.numpy())
        is_other = ~(difference <= allowed) & (recorded != found.numpy())  # both may be infinite
        if is_other.any():
            self._refuse_dense(step, is_other, difference, allowed)

    def _refuse_dense(
        self, step: ReplayedStep, is_other: np.ndarray, difference: np.ndarray, allowed: np.ndarray
    ) -> None:
        is_dense = np.repeat(~np.array(self._derivatives.loss.sparse), self._updates.sizes)
        places = np.flatnonzero(is_other & is_dense)
        if not places.size:
            return
        place = places[0]
        variable = int(np.searchsorted(np.cumsum(self._updates.sizes), place, side="right"))
        path = self._run.manifest.variables[variable].path
        raise UnbalancedLedgerError(
            f"Step {step.number} of {self._run.run_dir} left another second moment of {path!r} than its gradient gives: "
            f"they differ by {difference[place]:.2g}, and rounding explains {allowed[place]:.2g}. So the record was "
            f"changed, or something other than the optimizer set its variables. Ledgers use the second moment as it is "
            f"recorded."
        )
