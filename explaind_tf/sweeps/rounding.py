"""Rounding: what the samples of an update leave of the gradient that the update used.

    rounding_s = ⟨Ψ_s, g_s − κ_s (Σ_k ω_k ∇ℓ_k + ∇R)⟩

Most routes never form the gradients of single samples, only their products with the rows Ψ. So the difference is taken of
products: that with what the update added to the momentum, less those of its samples and regularisers.
"""

import numpy as np

from explaind_tf import constants as names
from explaind_tf.errors import UnbalancedLedgerError
from explaind_tf.kernel.use_rows import EffectRows
from explaind_tf.replay.path_replay import ReplayedStep
from explaind_tf.sweeps.rows import absolute_products, products_by_part
from explaind_tf.sweeps.task import Task

# Rounding is usually below so many units in the last place of what samples did without regard to sign. Above, its bound is
# computed, which takes some backward passes.
_USUAL = 1e4
# Rounding error of what an update added to the momentum, in units in the last place of the momentum before.
_SUBTRACTED = 4


class UpdateRounding:
    """One update on its way through the reverse sweep: its rows, and what its samples have left of it so far.

    Parameters
    ----------
    task : Task
        The task.
    update : ReplayedStep
        The step of the update.
    effects : dict
        The rows of the update, by the step under which they are entered.
    memory : float
        Share of the momentum that survives an update, as the rows use it.

    Attributes
    ----------
    update : ReplayedStep
        The step of the update.
    rows : dict
        How far a unit of the gradient of one of the update's batches moves the measurements, by step.
    left : dict
        What is left by step, shape (F,) or (F, parts), float64.
    """

    def __init__(
        self, task: Task, update: ReplayedStep, effects: dict[int, EffectRows], memory: float
    ) -> None:
        self._task, self.update, self._effects = task, update, effects
        self._unit = task.as_trained.model.eps
        self.rows = {step: effect.of_gradient() for step, effect in effects.items()}
        self._is_due = task.recorded.batch_check.is_due(update)
        self._batches: list[ReplayedStep] = []
        self._gradient: np.ndarray | float = 0.0
        self._gross: dict[int, np.ndarray] = {}  # what samples did, without regard to sign, shape (F,)
        self.left: dict[int, np.ndarray] = {}
        updates = task.recorded.updates
        self._has_momentum = updates.has_momentum
        if self._has_momentum:
            added = updates.momentum_added(update, memory)
            for step, effect in effects.items():
                self.left[step] = products_by_part(task, effect.of_momentum(), added)

    def take_batch(self, step: ReplayedStep) -> None:
        """Take a batch of the update, from the last to the first: its gradient, without the split over its samples."""
        gradients = self._task.recorded.gradients.by_source(
            step, None, with_samples=self._is_due or not self._has_momentum
        )
        self._batches.insert(0, step)
        self._gradient = self._gradient + sum(gradients.values())
        if (
            not self._has_momentum
        ):  # then the samples' part of the displacement is computed from this gradient
            self._add(gradients[names.DATA])
        elif names.REGULARIZER in gradients:
            self._add(-gradients[names.REGULARIZER])

    def subtract(self, step: int, values: np.ndarray) -> None:
        """Subtract what samples did, shape (F, samples[, tokens][, parts])."""
        self.left[step] = self.left[step] - values.sum(axis=(1, 2) if self._task.question.keeps_tokens else 1)
        self._gross[step] = self._gross.get(step, 0.0) + np.abs(values).sum(axis=tuple(range(1, values.ndim)))

    def end(self) -> None:
        """Subtract what waited before the run, and check batches and rounding.

        Raises
        ------
        UnbalancedLedgerError
            If the batches are not those that trained, or the rounding is larger than rounding can be.
        """
        start = self._task.recorded.run.step_store.start
        if start.accumulated is not None and self._batches[0].number == 0 and self._has_momentum:
            self._add(-start.accumulated)
        if self._is_due:
            self._task.recorded.batch_check.check(self.update, self._batches, np.asarray(self._gradient))
        self._check_size()

    def _check_size(self) -> None:
        """Check that the rounding is no larger than rounding can be: a wrong product with a gradient would be in it too."""
        error: np.ndarray | None = None
        for step, use in self.rows.items():
            found = np.abs(self.left[step].reshape(len(self._gross[step]), -1).sum(axis=1))
            if (found <= _USUAL * self._unit * self._gross[step]).all():
                continue
            if error is None:
                error = self._task.recorded.batch_check.rounding(self._batches)
            allowed = absolute_products(use, error)
            if self._has_momentum:
                before = self._task.recorded.updates.momentum_before(self.update.number)
                assert before is not None
                allowed = allowed + absolute_products(
                    self._effects[step].of_momentum(), _SUBTRACTED * self._unit * np.abs(before)
                )
            if not (found <= allowed).all():
                worst = int(np.argmax(np.nan_to_num(found - allowed, nan=np.inf)))
                raise UnbalancedLedgerError(
                    f"Step {self.update.number} of {self._task.recorded.run.run_dir}: the entries of the samples do not add "
                    f"up to what the step's gradient did. For one measurement they miss it by {found[worst]:.2g}, and "
                    f"rounding explains {allowed[worst]:.2g}. The batch is the one that trained, so gradients of single "
                    f"samples are wrong, which is an error of explaind_tf: please report the layers of the model. Ledgers "
                    f"that keep no samples, tokens or groups are not affected."
                )

    def _add(self, gradient: np.ndarray) -> None:
        for step, rows in self.rows.items():
            self.left[step] = self.left.get(step, 0.0) + products_by_part(self._task, rows, gradient)
