"""`Session`: a training run that is being recorded, from the check of its first step to the commit."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

import keras
import numpy as np

from explaind_tf.errors import RefusedError
from explaind_tf.recording import checks
from explaind_tf.recording.beginning import begin_run
from explaind_tf.recording.describing import describe_run, environment_of
from explaind_tf.recording.diverging import BETWEEN_STEPS, find_divergence
from explaind_tf.recording.exporting.training_step import export_training_step
from explaind_tf.recording.exporting.variable_specs import variable_specs
from explaind_tf.recording.first_step import check_first_step
from explaind_tf.recording.forecast import Planned, choose, estimate_recording, moving_line
from explaind_tf.recording.knowledge import Knowledge
from explaind_tf.recording.observing.batches import BatchForm, StepBatch, known
from explaind_tf.recording.observing.observer import StepObserver
from explaind_tf.recording.observing.summaries import StepSummaries
from explaind_tf.recording.observing.tap import Tap
from explaind_tf.recording.observing.weight_observer import StepOutcome, WeightObserver
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.recording.resuming import resume_again, resume_at, rewind_to, same
from explaind_tf.recording.session_state import Changes, FirstStep, Position, Standing, Training
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.replicas import replica_count
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.estimate import Estimate, Seconds
from explaind_tf.runs.format.description import ALL_FIELDS, KNOWN_BEFORE_DATA, RunDescription
from explaind_tf.runs.format.divergence import DIVERGED, Divergence
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import StepRecord
from explaind_tf.runs.graphs.loaded import Graphs
from explaind_tf.runs.storage.files import AnyPath


class Session:
    """One training run that is being recorded.

    Parameters
    ----------
    training : Training
        What is trained.
    tap : Tap or None
        Knows the ids of samples, if the user tapped a dataset.
    run_dir : Path or UPath
        New or empty directory; with ``resumed``, the directory of that run.
    options : RecordingOptions
        The user's options.
    planned : Planned or None
        Planned length of the fit, for estimates; None if the data do not tell it.
    standing : Standing
        The level of the recording, which may become lower.
    resumed : RecordedRun, optional
        A run to continue. Model and optimizer are set to the state in which it stopped.

    Attributes
    ----------
    divergence : Divergence or None
        Where the training stopped being finite. The run ends before that step.

    Raises
    ------
    RefusedError
        If the run cannot be recorded or continued.
    """

    def __init__(
        self,
        training: Training,
        tap: Tap | None,
        run_dir: AnyPath,
        options: RecordingOptions,
        planned: Planned | None,
        standing: Standing,
        resumed: RecordedRun | None = None,
    ) -> None:
        model, optimizer = training.model, training.optimizer
        if optimizer is not None:
            checks.check_built_for(optimizer, model)
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
        self._training, self._tap = training, tap
        self._model, self._optimizer = model, optimizer
        self._options, self._planned = options, planned
        self._observer = WeightObserver.of(model) if optimizer is None else StepObserver(model, optimizer)
        self._known = Knowledge(training, standing, options.every)
        self._compiled_loss = training.fitted._compile_loss
        self._run_dir = run_dir
        self._every = 1
        self._writer: RunWriter | None = None  # nothing is written before the check of the first step
        self._summaries = StepSummaries(options.tensorboard, variable_specs(model.trainable_variables))
        self.estimate: Estimate | None = None
        self.divergence: Divergence | None = None
        self._given = self._observer.snapshot()
        self._resumed: RecordedRun | None = None
        if resumed is None:
            start = self._observer.snapshot()
            self._first, self._at = FirstStep(start), Position(0, self._observer.iteration(), start)
        else:
            self._go_on_with(resumed)

    @property
    def steps(self) -> int:
        """Number of recorded steps."""
        return self._at.steps

    @property
    def kept_steps(self) -> tuple[int, int]:
        """Number of steps that survive the end of the process, and of later ones that wait for upload and do not."""
        if self._writer is None:
            return 0, 0
        return self._writer.step_count - self._writer.pending_steps, self._writer.pending_steps

    @property
    def moving(self) -> str:
        """What a keyframe takes, in words."""
        return moving_line(self._observer.variables, self._planned)

    @property
    def standing(self) -> Standing:
        """The level of the recording."""
        return self._known.standing

    @property
    def has_steps(self) -> bool:
        """Whether anything was recorded."""
        return self._writer is not None

    def _go_on_with(self, run: RecordedRun) -> None:
        """Continue a run where it stopped, or where a callback has taken the model back to.

        Raises
        ------
        RefusedError
            If model or optimizer are not those of the run.
        """
        self._refuse_other(run.manifest, KNOWN_BEFORE_DATA)
        if self._options.every not in ("auto", run.manifest.every):
            raise RefusedError(
                f"{run.run_dir} was recorded with every={run.manifest.every}, not {self._options.every}. The distance "
                f"between keyframes is the same in the whole run. Resume it with PathLogger(run_dir, "
                f"every={run.manifest.every}, resume=True)."
            )
        self._writer = RunWriter.reopen(run)
        self._every = run.manifest.every
        losses = run.graphs.loss_functions() if isinstance(run.graphs, Graphs) else None
        # Only now, since everything above may still refuse.
        self._at, self._resumed = resume_at(run, self._observer), run
        self._first = FirstStep(self._observer.snapshot(), losses, run.manifest)

    def meet(self, data: Any) -> BatchForm | None:
        """Take note of the form of the data, when a step is traced and before it is taken.

        Returns
        -------
        BatchForm or None
            How batches are recorded; None if they are not.

        Raises
        ------
        RefusedError
            If the steps to come cannot be recorded. The model is then as it was given.
        """
        known = self._known
        if known.functions is None:
            try:
                known.learn(data)
                if self._first.recorded_as is not None:
                    self._refuse_other(self._first.recorded_as, ALL_FIELDS)
            except RefusedError:
                if self._resumed is not None:  # only then were they set
                    self._observer.variables.restore(self._given)
                raise
            if self._first.recorded_as is None:
                self._first.losses = known.functions
        elif known.form is not None and not known.form.accepts(found := BatchForm.of(data)):
            raise RefusedError(
                f"This PathLogger recorded a fit into {self._run_dir} and was now given elements of another form: "
                f"{found}, where it was {known.form}. Record this fit on its own, with a new PathLogger and directory."
            )
        return known.form

    def _refuse_other(self, manifest: Manifest, fields: Collection[str], *, with_decay: bool = False) -> None:
        """Refuse a model, optimizer or data that differ in some fields from the recorded ones."""
        others = self._description().differences(manifest, fields, with_decay=with_decay)
        if others:
            raise RefusedError(
                f"{self._run_dir} was recorded with another model, optimizer or dataset: they differ in "
                f"{', '.join(others)}. Resume with the ones of the recording, or record into another directory."
            )

    def resume(self, model: keras.Model, tap: Tap | None) -> None:
        """Continue with a further fit, after a check that it continues the recorded run.

        Changes of weights or state since the last fit are recorded like any change between two steps, as external.

        Raises
        ------
        RefusedError
            If the further steps would not belong to the same run.
        """
        found = None
        is_other_optimizer = (
            self._optimizer is not None and checks.stepped_optimizer(model) is not self._optimizer
        )
        if model is not self._training.fitted or is_other_optimizer:
            found = "another model or optimizer"
        elif model._compile_loss is not self._compiled_loss:
            found = "a model that was compiled again"
        elif self._observer.iteration() != self._at.iteration or not same(
            self._observer.momentum(), self._at.last.momentum
        ):
            found = "an optimizer that was stepped or set since, outside of what is recorded"
        if found is not None:
            raise RefusedError(
                f"This PathLogger recorded a fit into {self._run_dir} and was now given {found}. To continue a run, the "
                f"compiled model and the optimizer's state must be the same. Record this fit on "
                f"its own, with a new PathLogger and directory. The effect of its present momentum is then the entry "
                f"`carryover`."
            )
        self._tap = tap

    def _description(self) -> RunDescription:
        """Return the manifest's description of model, optimizer and data."""
        known = self._known
        return describe_run(
            *(self._model, self._optimizer, self._observer.optimizer_variables, known.standing),
            inputs=known.inputs,
            form=known.form,
            facts=None if known.functions is None else known.functions.facts,
            replicas=replica_count(self._training.fitted),
        )

    def _begin_run(self, first: StepRecord, batch: StepBatch | None, replicas: int) -> RunWriter:
        known = self._known
        assert known.functions is not None  # a step was taken
        training = export_training_step(
            *(self._model, self._optimizer, self._observer.variables),
            *(known.form, known.functions.facts, self._options),
        )
        if self._planned is not None:
            dense = estimate_recording(
                first,
                batch,
                self._planned,
                graphs=known.functions.byte_count,
                training=training.byte_count,
                keeps_training=training.is_kept,
                start=self._first.start,
                replicas=replicas,
            )
            self.estimate = choose(dense, self._options, self._run_dir)
            self._every = self.estimate.every
        return begin_run(
            RunWriter.create(self._run_dir, clear_begun=self._options.resume),
            *(known.functions, training, self._description()),
            every=self._every,
            environment=environment_of(self._model),
            start=self._first.start,
        )

    def before_step(self) -> None:
        """Note what was changed since the previous step."""
        run = self._resumed
        if run is not None and self._observer.iteration() != self._at.iteration:
            # A callback restored an earlier state after the logger's turn.
            self._at = resume_again(run, self._observer)
            self._first.start = self._observer.snapshot()
        self._notice_changes()

    def _notice_changes(self) -> None:
        last, iteration = self._at.last, self._observer.iteration()
        is_open_ended = self._planned is None and same(self._observer.momentum(), last.momentum)
        if iteration != self._at.iteration and is_open_ended:
            # At the end of data of unknown length, Keras runs the operations of a step that need no data: it counts a
            # step and decays the weights.
            self._at.iteration = iteration
        self._at.changes = Changes(
            self._observer.changed_weights(last.theta), self._observer.changed_state(last.state)
        )

    def after_execution(self) -> None:
        """Record the steps that one execution took."""
        steps = [[self._with_ids(batch) for batch in step] for step in self._training.watched.close()]
        if self._optimizer is None:
            for _ in steps:
                self._record_step([None], self._observer.outcome(0))
            return
        taken = self._observer.iteration() - self._at.iteration
        if taken == 0 and len(steps) == 1 and self._observer.may_skip:
            self._record_step(steps[0], self._observer.skipped())
            return
        if taken != len(steps):
            raise RefusedError(
                f"In one execution, train_step received {len(steps)} batches and the optimizer counted {taken} steps. "
                f"While fit() is being recorded, each batch must be one step of the optimizer, and nothing else may step it "
                f"or set its counter."
            )
        for batches in steps:
            self._record_step(batches, self._observer.outcome(self._at.iteration))
            self._at.iteration += 1

    def _with_ids(self, batch: StepBatch | None) -> StepBatch | None:
        if batch is None or self._known.form is None:
            return None
        if self._tap is None or batch.ids is not None:
            return batch
        return replace(batch, ids=self._tap.ids_of(batch.fingerprints.values))

    def _record_step(self, batches: Sequence[StepBatch | None], outcome: StepOutcome) -> None:
        """Record a step: the batch of each replica, after the last of which the weights are updated."""
        if self.divergence is not None:  # in an earlier step of the same execution
            return
        if not np.isfinite(outcome.snapshot.theta).all():
            self._end_before(batches, outcome)
            return
        if not (self._first.is_checked or outcome.is_skipped):
            batches = self._checked_first(batches, outcome)
        batches = known(batches) or [None]  # without batches there is nothing to tell replicas apart by
        outcomes = outcome.by_replica(self._at.changes.applied_to(self._at.last), len(batches))
        for batch, found in zip(batches, outcomes, strict=True):
            self._record_batch(batch, found, len(batches))

    def _record_batch(self, batch: StepBatch | None, outcome: StepOutcome, replicas: int) -> None:
        after = outcome.snapshot
        earlier = -1 if self._optimizer is None else self._optimizer.updates_before(self._at.iteration)
        record = self._at.record_of(outcome, batch, earlier)
        if self._writer is None:
            self._writer = self._begin_run(record, batch, replicas)
        self._open(self._writer)
        rows = np.zeros(0, np.int64) if batch is None else self._writer.write_samples(batch)
        is_keyframe = (self._at.steps + 1) % self._every == 0
        written = replace(record, rows=rows, sample_count=self._writer.sample_count)
        is_whole = is_keyframe and not outcome.is_unchanged
        self._writer.write_step(written if is_whole else written.without_snapshot())
        start = self._at.changes.applied_to(self._at.last).theta
        self._summaries.write(written, start, after.theta)
        self._at.last, self._at.is_keyframe = after, is_whole
        self._at.steps += 1
        self._at.changes = Changes()

    def _open(self, writer: RunWriter) -> None:
        """Open the run for a further fit, unless it is open."""
        if not writer.is_open:
            writer.open_shards()
            if self._at.steps < writer.step_count:
                writer.rewind(rewind_to(self._at, writer.sample_count))

    def _end_before(self, batches: Sequence[StepBatch | None], outcome: StepOutcome) -> None:
        """End the run before a step that left weights which are not finite."""
        scale = self._observer.loss_scale_in(self._at.last)
        variables = self._model.trainable_variables
        found = find_divergence(self._at, outcome.snapshot, variables, known(batches), self._first, scale)
        if self._writer is None:
            raise RefusedError(
                f"The {found}. It is the first step, so there is nothing to account for, and nothing was written. Look "
                f"for NaN in the data, or lower the learning rate."
            )
        self._open(self._writer)
        self._at.changes = self._at.changes.finite()
        self.divergence = found

    def _checked_first(
        self, batches: Sequence[StepBatch | None], outcome: StepOutcome
    ) -> Sequence[StepBatch | None]:
        """Return the batches of the first step, or None alone if the check shows that samples do not explain the step."""
        if self._first.recorded_as is not None:
            self._refuse_other(self._first.recorded_as, ALL_FIELDS, with_decay=True)
        self._first.is_checked = True
        self._resumed = None
        if not known(batches):
            return [None]
        assert isinstance(self._observer, StepObserver)  # otherwise batches are not recorded
        try:
            check_first_step(self._training, self._observer, self._first, self._at, known(batches), outcome)
        except RefusedError as error:
            if self._first.recorded_as is not None:
                raise
            self._known.lower(error)
            return [None]
        return batches

    def finish(self, seconds: Seconds | None) -> str:
        """Commit the run and the seconds per step, and return a summary of what was written."""
        self._summaries.close()
        if self._writer is None:
            return f"no step was taken; {self._run_dir} was not written"
        if not self._writer.is_open:
            return f"no step was taken; {self._run_dir} was not changed"
        at = self._at
        if self.divergence is None:
            self._notice_changes()
            if not at.changes.are_finite:
                self.divergence, at.changes = Divergence(at.steps, BETWEEN_STEPS), at.changes.finite()
        end = at.end(self._writer.sample_count)
        if end is not None:
            self._writer.write_step(end)
        facts = {"seconds_per_step": seconds, DIVERGED: self.divergence}
        self._writer.finish({name: asdict(fact) for name, fact in facts.items() if fact is not None})
        return (
            f"wrote {self._at.steps} steps and {self._writer.sample_count} distinct samples "
            f"({self._writer.byte_count / 1e6:,.1f} MB) to {self._writer.run_dir}"
        )

    def flush(self) -> None:
        """Upload the steps that wait for upload."""
        if self._writer is not None:
            self._writer.flush()

    def close(self) -> None:
        """Release the directory without committing. The run can be read and continued up to its last whole step."""
        self._summaries.close()
        if self._writer is not None:
            self._writer.close()
