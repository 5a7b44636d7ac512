"""Recorded steps trained again with other weights of samples, from the recorded graphs and samples alone."""

import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from explaind_tf import constants
from explaind_tf.errors import RefusedError, RunFormatError
from explaind_tf.levels import SAMPLE
from explaind_tf.progress import Progress
from explaind_tf.runs.format.description import averages_of
from explaind_tf.runs.format.step_records import Layout, Snapshot, StepRecord
from explaind_tf.runs.format.training_step import NO_TRAINING_STEP, NO_WEIGHTED_STEP
from explaind_tf.runs.graphs.training_graph import TrainingGraph
from explaind_tf.runs.keyframes import LARGEST_DRIFT, drift_of
from explaind_tf.runs.reader import RecordedRun
from explaind_tf.runs.steps import Transition, ends_first, transition_between

_BY_WEIGHTS = "mean_with_sample_weight"


class Retrainer:
    """Trains a run again, as often as asked. It loads the training step and the steps' rows once.

    Parameters
    ----------
    run : RecordedRun
        The run. It is not held, since it may hold this object.

    Raises
    ------
    RefusedError
        If the run has no training step.
    """

    def __init__(self, run: RecordedRun) -> None:
        self._manifest, self._store, self._samples = run.manifest, run.step_store, run.samples
        self._where = str(run.run_dir)
        # Whether a training may begin at its first changed step; None until this was checked.
        self._starts_late: bool | None = None
        self._refuse_without_step()
        if not len(self._store):
            raise RefusedError(f"{self._where} has no whole step that could be trained again.")

    def _refuse_without_step(self) -> None:
        prefix = f"{constants.TRAINING_DIR}/"
        if any(file.file.startswith(prefix) for file in self._manifest.graphs):
            return
        reason = self._manifest.environment.get(NO_TRAINING_STEP)
        if self._manifest.level != SAMPLE:
            reason = f"It was recorded at the level {self._manifest.level!r}: {self._manifest.level_reason}"
        why = f" {reason}" if isinstance(reason, str) else ""
        raise RefusedError(
            f"{self._where} does not hold the training step, so it cannot be trained again.{why} Record it again with "
            f"PathLogger(run_dir, retrain=True), the default, or with every=K. The model must be compiled without "
            f"run_eagerly=True, and its training step must not call Python."
        )

    @cached_property
    def _graph(self) -> TrainingGraph:
        assert self._store.replay is not None  # a run that was opened has one
        return self._store.replay.graph

    @cached_property
    def _records(self) -> list[StepRecord]:
        """The records of all steps, with digests of the variables that the steps led to."""
        found = (self._store.recorded(step) for step in range(len(self._store)))
        return [record if record.snapshot is None else record.without_snapshot() for record in found]

    def states(self, factors: np.ndarray, kept: Collection[int], progress: Progress) -> dict[int, Snapshot]:
        """Train again, and return weights and state before some steps.

        Other factors than 1 tell a difference from the recorded training. So before they are used, the steps are trained
        once as they were, which must lead where they led.

        Keras trains with weights of samples by another graph than without. Its operations are the same times one, but
        TensorFlow may fuse them otherwise, and round otherwise. Only if it does not, the steps before the first changed
        sample are the recorded ones, bit for bit, and are not trained again.

        Parameters
        ----------
        factors : np.ndarray of float64
            Factor of the weight of each row of the sample store, shape (rows,).
        kept : collection of int
            The steps; the number of steps stands for the end.
        progress : Progress
            Shows a bar.

        Returns
        -------
        dict of int to Snapshot
            The states, without the optimizer's variables.

        Raises
        ------
        RefusedError
            If the training with these factors is not known, or diverges.
        RunFormatError
            If the steps do not lead where they led, by more than rounding explains.
        """
        factors = self._as_used(factors)
        changed = self._first_changed(factors)
        if changed is None:
            return self._as_it_was(kept, progress)
        self._refuse_unknown(changed)
        first = changed if self._may_start_late(progress) else 0
        found = {step: Snapshot(*self._store.before(step)) for step in kept if step < first}
        self._restore(first)
        with progress.task("Train again", len(self._records) - first) as advance:
            for record in self._records[first:]:
                self._change(record, keeps_floats=record.step > changed)
                if record.step in kept:
                    found[record.step] = self._now(record.step)
                self._train(record, factors)
                advance()
        return found | self._end(keeps_floats=True)

    def _change(self, record: StepRecord, *, keeps_floats: bool) -> None:
        """Make the changes that something else made before a step: of weights, only those that the averages made."""
        self._graph.change(record, keeps_floats=keeps_floats)
        if keeps_floats and self._are_averages(record):
            specs, reached = self._manifest.optimizer_state, self._graph.variables.snapshot()
            self._graph.variables.set_parameters(averages_of(specs, reached.optimizer))

    def _are_averages(self, record: StepRecord) -> bool:
        """Whether the weights that were set before a step are the moving averages that the optimizer had then.

        Keras sets them when ``fit`` ends (``base_optimizer.py::finalize_variable_values``).
        """
        if record.theta_before is None or self._manifest.optimizer.ema_momentum is None:
            return False
        before = self._store.step(record.step - 1).known if record.step else self._store.start
        averages = averages_of(self._manifest.optimizer_state, before.optimizer)
        return np.array_equal(averages, record.theta_before)

    def _may_start_late(self, progress: Progress) -> bool:
        """Return whether a training may begin at its first changed step, after a check that the record can be trained again.

        Raises
        ------
        RunFormatError
            If the steps do not lead where they led, by more than rounding explains.
        """
        if self._starts_late is None:
            starts_late = self._is_same_with_ones(progress)
            if not starts_late:
                self._as_it_was((), progress)
            self._starts_late = starts_late
        return self._starts_late

    def check(self, factors: np.ndarray, progress: Progress) -> None:
        """Refuse factors of the weights with which the run cannot be trained again; see :meth:`states`."""
        changed = self._first_changed(self._as_used(factors))
        if changed is not None:
            self._refuse_unknown(changed)
            self._may_start_late(progress)

    def walk(self, factors: np.ndarray, first: int, stop: int, begin: Snapshot) -> Iterator[StepRecord]:
        """Train the steps ``first … stop − 1`` from a state, and yield their records with what they led to.

        :meth:`check` the factors first.

        Parameters
        ----------
        factors : np.ndarray of float64
            As for :meth:`states`.
        first, stop : int
            The steps.
        begin : Snapshot
            All variables before the first one.

        Raises
        ------
        RefusedError
            If the training diverges.
        """
        factors = self._as_used(factors)
        self._graph.variables.restore(begin)
        for record in self._records[first:stop]:
            self._graph.change(record, keeps_floats=record.step > 0)
            self._train(record, factors)
            snapshot, stepped = self._graph.reached(record)
            _refuse_diverged(snapshot, record.step + 1)
            yield replace(record, snapshot=snapshot, theta_stepped=stepped)

    def _is_same_with_ones(self, progress: Progress) -> bool:
        """Train with factors of 1, and return whether each step leads to the recorded bits."""
        ones = np.ones(len(self._samples.id_of_row))
        self._restore(0)
        with progress.task("Train again as it was", len(self._records)) as advance:
            for record in self._records:
                self._graph.change(record)
                self._train(record, ones)
                if self._graph.variables.snapshot().digest() != record.digest:
                    return False
                advance()
        return True

    def _as_it_was(self, kept: Collection[int], progress: Progress) -> dict[int, Snapshot]:
        """Train as it was, and check that this leads where it led."""
        found: dict[int, Snapshot] = {}
        last = self._store.last()  # first, since it may use the graph, too
        begin = self._restore(0)
        with progress.task("Train again as it was", len(self._records)) as advance:
            for record in self._records:
                self._graph.change(record)
                if record.step in kept:
                    found[record.step] = self._now(record.step)
                self._graph.train(record, self._batch(record))
                advance()
        self._compare(self._graph.variables.snapshot(), last, begin)
        return found | self._end()

    def _restore(self, first: int) -> Snapshot:
        """Set all variables to their values after the step before ``first``, and return these."""
        begin = self._store.start if first == 0 else self._store.step(first - 1).known
        self._graph.variables.restore(begin)
        return begin

    def _end(self, *, keeps_floats: bool = False) -> dict[int, Snapshot]:
        """Make the changes after the last step, and return the end."""
        if self._store.closing is not None:
            self._change(self._store.closing, keeps_floats=keeps_floats)
        return {len(self._records): self._now(len(self._records))}

    def _compare(self, reached: Snapshot, recorded: Snapshot, begin: Snapshot) -> None:
        drift = drift_of(reached, recorded, begin)
        if drift == 0:
            return
        found = (
            f"Training the steps of {self._where} again did not lead to the recorded weights: they are off by {drift:.2g} "
            f"of the distance that they moved"
        )
        if not drift <= LARGEST_DRIFT:
            raise RunFormatError(
                f"{found}, more than the {LARGEST_DRIFT:g} that rounding explains. Either a callback set weights or the "
                f"optimizer's variables after the logger's turn: then list the logger after callbacks that do so in "
                f"on_train_batch_begin, and before those that do so in on_train_batch_end. Or this machine rounds otherwise "
                f"than that of the recording, or has other versions: then train again there."
            )
        warnings.warn(
            f"{found}. Rounding explains this much: this machine rounds otherwise than that of the recording, or has other "
            f"versions. Compare with run.retrain(), not with the run.",
            stacklevel=_levels_to_user(),
        )

    def _train(self, record: StepRecord, factors: np.ndarray) -> None:
        graph, before = self._graph, self._graph.iteration
        if record.weights:
            graph.train(record, self._batch(record, factors))
        else:
            graph.train(record, self._batch(record), factors[record.rows].astype(graph.weight_dtype))
        if record.is_skipped and graph.iteration != before:
            raise RefusedError(
                f"With these weights, the optimizer no longer skips step {record.step}, which the loss scale made it skip "
                f"in training. Which learning rate it would have had is not known."
            )

    def _batch(self, record: StepRecord, factors: np.ndarray | None = None) -> list[np.ndarray]:
        inputs, targets = self._samples.take_flat(record.rows)
        weights = record.weights
        if factors is not None:
            weights = [self._product(record.step, own, factors[record.rows]) for own in weights]
        return [*inputs, *targets, *weights]

    def _product(self, step: int, own: np.ndarray, factors: np.ndarray) -> np.ndarray:
        """Return recorded weights, shape (batch, ...), times factors, shape (batch,), in the dtype of the weights."""
        exact = own * factors.reshape(-1, *[1] * (own.ndim - 1))
        product = exact.astype(own.dtype)
        if not np.issubdtype(own.dtype, np.floating) and not np.array_equal(product, exact):
            raise RefusedError(
                f"The data have weights of samples of dtype {own.dtype}, which cannot be multiplied with the weights given "
                f"for step {step}. Give weights whose products are of this dtype, such as 0 and 1."
            )
        return product

    def _as_used(self, factors: np.ndarray) -> np.ndarray:
        """Return factors as the step takes them: rounded to its dtype, if it takes them."""
        dtype = None if self._manifest.weights is not None else self._graph.weight_dtype
        return factors if dtype is None else factors.astype(dtype).astype(np.float64)

    def _first_changed(self, factors: np.ndarray) -> int | None:
        """Return the first step whose batch holds a sample with another factor than 1, None if there is none."""
        is_changed = factors != 1
        return next((record.step for record in self._records if is_changed[record.rows].any()), None)

    def _refuse_unknown(self, changed: int) -> None:
        """Refuse other weights if what they change is not known.

        Raises
        ------
        RefusedError
            If the step takes no weights, or its loss divides by them; or if something else set weights or state after the
            first changed step.
        """
        divided = [part["name"] for part in self._manifest.loss["losses"] if part["reduction"] == _BY_WEIGHTS]
        if divided:
            raise RefusedError(
                f'The loss {divided[0]!r} has reduction="{_BY_WEIGHTS}": it divides by the sum of the weights, so another '
                f"weight of one sample would also change those of the others in its batch. Train with the default reduction "
                f'"sum_over_batch_size" to ask for other weights.'
            )
        reason = self._manifest.environment.get(NO_WEIGHTED_STEP)
        if reason is not None or (self._manifest.weights is None and self._graph.weight_dtype is None):
            why = (
                reason if isinstance(reason, str) else "It was recorded by an earlier version of explaind_tf."
            )
            raise RefusedError(
                f"The training step of {self._where} takes no weights of samples, so it can only be trained again as it "
                f"was. {why} Record it again with PathLogger(run_dir, retrain=True), and train with Keras' own train_step "
                f"and compute_loss."
            )
        ends = [] if self._store.closing is None else [self._store.closing]
        for record in [*self._records[changed + 1 :], *ends]:
            self._refuse_set(record)

    def _refuse_set(self, record: StepRecord) -> None:
        what = None
        if record.theta_before is not None and not self._are_averages(record):
            what = "the weights"
        elif record.state_before is not None:
            before = self._store.step(record.step - 1).known.state
            pairs = zip(self._manifest.state, before, record.state_before, strict=True)
            moved = [spec.path for spec, a, b in pairs if spec.is_floating and not np.array_equal(a, b)]
            what = ", ".join(moved[:3]) or None
        if what is not None:
            when = "after the last step" if record.step == len(self._store) else f"before step {record.step}"
            raise RefusedError(
                f"Something other than the optimizer set {what} {when} of {self._where}: a callback, such as "
                f"EarlyStopping(restore_best_weights=True), or set_weights. What it would have set in a training with other "
                f"weights of samples is not known."
            )

    def _now(self, step: int) -> Snapshot:
        found = self._graph.variables.snapshot()
        _refuse_diverged(found, step)
        return Snapshot(found.theta, found.state)


def _levels_to_user() -> int:
    """Return the ``stacklevel`` of a warning that the caller gives: that of the call into this package."""
    package = __name__.partition(".")[0]
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


def _refuse_diverged(reached: Snapshot, step: int) -> None:
    if not np.isfinite(reached.theta).all():
        raise RefusedError(
            f"With these weights of samples, training diverges: the weights are NaN or infinite before step {step}. "
            f"Give smaller weights."
        )


class KeptStates:
    """Weights and states of a training, held in memory: a path from one to the next.

    Parameters
    ----------
    states : sequence of Snapshot
        Two or more, in order.
    layout : Layout
        Their variables.
    """

    def __init__(self, states: Sequence[Snapshot], layout: Layout) -> None:
        self.layout = layout
        self._states = states

    def __len__(self) -> int:
        """Return the number of steps of the path: the number of states minus one."""
        return len(self._states) - 1

    def theta(self, step: int) -> np.ndarray:
        """Return θ before ``step``, shape (D,)."""
        return self._states[step].theta

    def state(self, step: int) -> list[np.ndarray]:
        """Return the non-trainable variables before ``step``."""
        return self._states[step].state

    def recorded_states(self) -> Iterator[list[np.ndarray]]:
        """Yield all states: the first one, the last one, then those between."""
        return (self.state(step) for step in ends_first(len(self) + 1))

    def transition(self, step: int) -> Transition:
        """Return what is known about ``step``: the weights and state at its start and its end."""
        return transition_between(step, self._states[step], self._states[step + 1])
