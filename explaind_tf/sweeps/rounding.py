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
from explaind_tf.sweeps.rows import products, products_by_part
from explaind_tf.sweeps.task import Task

# Rounding is usually below so many units in the last place of what samples did without regard to sign. Above, gradients
# are compared, which takes some backward passes. One sample in a thousand that did not train is more.
_USUAL = 512
# Rounding error of what an update added to the momentum, in units in the last place of the momentum.
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
        self.rows = {step: effect.of_gradient() for step, effect in effects.items()}
        self._batches: list[ReplayedStep] = []
        self._gross: dict[int, np.ndarray] = {}  # what samples did, without regard to sign, shape (F,)
        self.left: dict[int, np.ndarray] = {}
        self._has_momentum = task.recorded.updates.has_momentum
        if self._has_momentum:
            added = task.recorded.updates.momentum_added(update, memory)
            for step, effect in effects.items():
                self.left[step] = products_by_part(task, effect.of_momentum(), added)

    def take_batch(self, step: ReplayedStep) -> None:
        """Take a batch of the update, from the last to the first: its gradient, without the split over its samples."""
        self._batches.insert(0, step)
        gradients = self._task.recorded.gradients.by_source(step, None, with_samples=not self._has_momentum)
        if not self._has_momentum:  # the samples' part of the displacement is computed from this gradient
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
        found = {step: values.reshape(len(values), -1).sum(axis=1) for step, values in self.left.items()}
        if self._are_usual(found):
            return
        self._task.recorded.batch_check.check(self.update, self._batches)
        if self._task.precisions.differ:
            lost = self._task.recorded.gradients.lost_to_precision(self._batches)
            for step, use in self.rows.items():
                found[step] = found[step] - products(use, lost)
        if not self._are_usual(found):
            self._check_sizes(found)

    def _are_usual(self, found: dict[int, np.ndarray]) -> bool:
        eps = float(np.finfo(self._task.derivatives.model.dtype.as_numpy_dtype).eps)
        return all(
            (np.abs(own) <= _USUAL * eps * self._gross.get(step, 0.0)).all() for step, own in found.items()
        )

    def _check_sizes(self, found: dict[int, np.ndarray]) -> None:
        """Check that rounding explains what is left: a wrong product with a gradient would be in it, too."""
        gradients = self._task.recorded.gradients
        error = gradients.rounding(self._batches, as_trained=False)
        if self._task.precisions.differ:
            error = error + gradients.rounding(self._batches, as_trained=True)
        before, after = self.update.transition.momentum_start, self.update.transition.momentum
        for step, use in self.rows.items():
            size, allowed = np.abs(found[step]), products(use, error, absolute=True)
            if before is not None and after is not None:
                rounded = _SUBTRACTED * float(np.finfo(after.dtype).eps) * (np.abs(before) + np.abs(after))
                allowed = allowed + products(self._effects[step].of_momentum(), rounded, absolute=True)
            if not (size <= allowed).all():
                worst = int(np.argmax(np.nan_to_num(size - allowed, nan=np.inf)))
                raise UnbalancedLedgerError(
                    f"Step {self.update.number} of {self._task.recorded.run.run_dir}: the entries of the samples do not add "
                    f"up to what the step's gradient did. For one measurement they miss it by {size[worst]:.2g}, and "
                    f"rounding explains {allowed[worst]:.2g}. The batch is the one that trained, so gradients of single "
                    f"samples are wrong, which is an error of explaind_tf: please report the layers of the model. Ledgers "
                    f"that keep no samples, tokens or groups are not affected."
                )

    def _add(self, gradient: np.ndarray) -> None:
        for step, rows in self.rows.items():
            self.left[step] = self.left.get(step, 0.0) + products_by_part(self._task, rows, gradient)
