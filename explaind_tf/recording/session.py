"""`Session`: a training run that is being recorded, from the check of its first step to the commit."""

import platform
from dataclasses import asdict
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording import checks
from explaind_tf.recording.exporting.pure_functions import PureFunctions, pure_functions, variable_specs
from explaind_tf.recording.exporting.training_step import TrainingStep
from explaind_tf.recording.forecast import Planned, choose, estimate_recording
from explaind_tf.recording.observing.observer import StepObserver, StepOutcome
from explaind_tf.recording.observing.summaries import StepSummaries
from explaind_tf.recording.observing.tap import Tap, TappedBatch
from explaind_tf.recording.recording_options import RecordingOptions
from explaind_tf.recording.session_state import Changes, FirstStep, Position
from explaind_tf.recording.writing.writer import RunWriter
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.estimate import Estimate, Seconds
from explaind_tf.runs.format.description import OptimizerSettings, RunDescription
from explaind_tf.runs.format.manifest import Manifest
from explaind_tf.runs.format.step_records import END, STEP, StepRecord
from explaind_tf.runs.graphs.loaded import LossFunctions
from explaind_tf.runs.storage.files import AnyPath


class Session:
    """One training run that is being recorded.

    Parameters
    ----------
    model : keras.Model
        Compiled model.
    optimizer : PathOptimizer
        The model's optimizer.
    tap : Tap
        The tapped dataset.
    run_dir : Path or UPath
        New or empty directory; with ``resumed``, the directory of that run.
    options : RecordingOptions
        The user's options.
    planned : Planned
        Planned length of the fit, for estimates.
    resumed : RecordedRun, optional
        A run to continue. Model and optimizer are set to the state in which it stopped.

    Raises
    ------
    RefusedError
        If the run cannot be recorded or continued.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizer: PathOptimizer,
        tap: Tap,
        run_dir: AnyPath,
        options: RecordingOptions,
        planned: Planned,
        resumed: RecordedRun | None = None,
    ) -> None:
        checks.build_model(model, tap)
        checks.check_variables(model)
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        self._model, self._optimizer, self._tap = model, optimizer, tap
        self._options, self._planned = options, planned
        self._functions = pure_functions(model, tap.inputs, tap.targets, tap.weights)
        self._observer = StepObserver(model, optimizer)
        self._data_check = checks.watch_data(model, has_weights=tap.weights is not None)
        self._compiled_loss = model._compile_loss
        self._run_dir = run_dir
        self._every = 1
        self._writer: RunWriter | None = None  # nothing is written before the check of the first step
        self._summaries: StepSummaries | None = None
        self.estimate: Estimate | None = None
        losses: PureFunctions | LossFunctions = self._functions
        if resumed is not None:
            losses = self._go_on_with(resumed)
        iteration, start = self._observer.iteration(), self._observer.variables.snapshot()
        if resumed is None:
            self._first, self._at = FirstStep(start, losses), Position(0, iteration, start)
        else:
            self._first = FirstStep(start, losses, resumed.manifest)
            self._at = Position(len(resumed.step_store), iteration, resumed.step_store.last())

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
    def has_steps(self) -> bool:
        """Whether anything was recorded."""
        return self._writer is not None

    def _go_on_with(self, run: RecordedRun) -> LossFunctions:
        """Set model and optimizer to the state in which a run stopped, and return the losses that the run recorded.

        Raises
        ------
        RefusedError
            If model or optimizer are not those of the run.
        """
        self._refuse_other(run.manifest, with_decay=False)
        if self._options.every not in ("auto", run.manifest.every):
            raise RefusedError(
                f"{run.run_dir} was recorded with every={run.manifest.every}, not {self._options.every}. The distance "
                f"between keyframes is the same in the whole run. Resume it with PathLogger(run_dir, "
                f"every={run.manifest.every}, resume=True)."
            )
        self._writer = RunWriter.reopen(run)
        self._every = run.manifest.every
        losses = run.graphs.loss_functions()
        # Only now, since everything above may still refuse.
        self._observer.variables.restore(run.step_store.final())
        return losses

    def _refuse_other(self, manifest: Manifest, *, with_decay: bool) -> None:
        """Refuse a model, optimizer or dataset that differs from the recorded one."""
        others = self._description().differences(manifest, with_decay=with_decay)
        if others:
            raise RefusedError(
                f"{self._run_dir} was recorded with another model, optimizer or dataset: they differ in "
                f"{', '.join(others)}. Resume with the ones of the recording, or record into another directory."
            )

    def resume(self, model: keras.Model, tap: Tap) -> None:
        """Continue with a further fit, after a check that it continues the recorded run.

        Changes of weights or state since the last fit are recorded like any change between two steps, as external.

        Raises
        ------
        RefusedError
            If the further steps would not belong to the same run.
        """
        found = None
        if model is not self._model or checks.stepped_optimizer(model) is not self._optimizer:
            found = "another model or optimizer"
        elif model._compile_loss is not self._compiled_loss:
            found = "a model that was compiled again"
        elif tap.form != self._tap.form:
            found = "a dataset with elements of another form"
        elif self._observer.iteration() != self._at.iteration or not _same(
            self._observer.momentum(), self._at.last.momentum
        ):
            found = "an optimizer that was stepped or set since, outside of what is recorded"
        if found is not None:
            raise RefusedError(
                f"This PathLogger recorded a fit into {self._run_dir} and was now given {found}. To continue a run, the "
                f"compiled model, the form of the dataset and the optimizer's state must be the same. Record this fit on "
                f"its own, with a new PathLogger and directory. The effect of its present momentum is then the entry "
                f"`carryover`."
            )
        self._tap = tap

    def _description(self) -> RunDescription:
        """Return the manifest's description of model, optimizer and data."""
        model, optimizer, facts = self._model, self._optimizer, self._functions.facts
        law = optimizer.law()
        decayed = optimizer.decay_mask(model.trainable_variables)
        return RunDescription(
            variables=variable_specs(model.trainable_variables, decayed),
            state=variable_specs(model.non_trainable_variables),
            optimizer=OptimizerSettings(
                law=law.name,
                constants=law.to_config(),
                second_moment=law.divides_by_second_moment,
                accumulates=optimizer.gradient_accumulation_steps or 1,
                clipvalue=optimizer.clipvalue,
            ),
            optimizer_state=variable_specs(self._observer.optimizer_variables),
            loss={"losses": list(facts.losses), "has_regularizer": facts.has_penalty},
            inputs=self._tap.inputs,
            targets=self._tap.targets,
            weights=self._tap.weights,
            outputs=facts.outputs,
        )

    def _begin_run(self, first: StepRecord, batch: TappedBatch) -> RunWriter:
        training = None
        if self._options.every != 1:
            training = TrainingStep(self._model, self._optimizer, self._observer.variables, self._tap)
        dense = estimate_recording(
            first,
            batch,
            self._planned,
            graphs=self._functions.byte_count,
            training=0 if training is None else training.byte_count,
        )
        self.estimate = choose(dense, self._options, self._run_dir)
        self._every = self.estimate.every
        writer = RunWriter.create(self._run_dir, clear_begun=self._options.resume)
        try:
            self._functions.save(str(writer.graphs_dir))
            if training is not None and self._every > 1:
                training.save(str(writer.graphs_dir / constants.TRAINING_DIR))
            writer.begin(
                self._description(),
                every=self._every,
                environment=_environment(self._model),
                start=self._first.start,
            )
        except BaseException:
            writer.close()  # releases the directory's lock
            raise
        return writer

    def before_step(self) -> None:
        """Note what was changed since the previous step."""
        self._tap.open()
        self._data_check.is_armed = True
        self._notice_changes()

    def _notice_changes(self) -> None:
        last = self._at.last
        self._at.changes = Changes(
            self._observer.changed_weights(last.theta), self._observer.changed_state(last.state)
        )

    def after_execution(self) -> None:
        """Record the steps that one execution took."""
        self._tap.close()
        taken = self._observer.iteration() - self._at.iteration
        if taken > self._model.steps_per_execution:
            raise RefusedError(
                f"The optimizer counted {taken} steps in one execution; {self._model.steps_per_execution} at most were "
                f"expected. While fit() is being recorded, nothing else may step the optimizer or set its counter."
            )
        if taken == 0 and self._observer.may_skip:
            self._record_step(self._tap.next_batch(), self._observer.skipped())
        for _ in range(taken):
            self._record_step(self._tap.next_batch(), self._observer.outcome(self._at.iteration))
            self._at.iteration += 1

    def _record_step(self, batch: TappedBatch, outcome: StepOutcome) -> None:
        after = outcome.snapshot
        if not np.isfinite(after.theta).all():
            kept = f" The {self._at.steps} steps before are in {self._run_dir}." if self._at.steps else ""
            raise RefusedError(
                f"The weights became NaN or infinite in step {self._at.steps}: from there on, predictions cannot be "
                f"accounted for.{kept} Look for NaN in the data, or lower the learning rate."
            )
        if not (self._first.is_checked or outcome.is_skipped):
            self._check_first_step(batch, outcome)
            self._first.is_checked = True
        record = partial(
            StepRecord,
            kind=STEP,
            step=self._at.steps,
            snapshot=after,
            updates=outcome.scalars is not None,
            iteration=self._optimizer.updates_before(self._at.iteration),
            learning_rate=0.0 if outcome.scalars is None else outcome.scalars.learning_rate,
            weights=batch.weights,
            clip_factors=outcome.clip_factors,
            theta_stepped=outcome.theta_stepped,
            theta_before=self._at.changes.theta,
            state_before=self._at.changes.state,
            is_skipped=outcome.is_skipped,
        )
        if self._writer is None:
            self._writer = self._begin_run(record(), batch)
        elif not self._writer.is_open:
            self._writer.open_shards()
        rows = self._writer.write_samples(batch)
        is_keyframe = (self._at.steps + 1) % self._every == 0
        written = record(rows=rows, sample_count=self._writer.sample_count)
        self._writer.write_step(written if is_keyframe else written.without_snapshot())
        if self._options.tensorboard is not None:
            self._summarise(written, after.theta)
        self._at.last, self._at.is_keyframe = after, is_keyframe
        self._at.steps += 1
        self._at.changes = Changes()

    def _summarise(self, record: StepRecord, theta: np.ndarray) -> None:
        if self._summaries is None:
            assert self._options.tensorboard is not None  # asked for
            specs = variable_specs(self._model.trainable_variables)
            self._summaries = StepSummaries(self._options.tensorboard, specs)
        before = self._at.last.theta if record.theta_before is None else record.theta_before
        self._summaries.write(record.step, record.learning_rate, theta - before)

    def _check_first_step(self, batch: TappedBatch, outcome: StepOutcome) -> None:
        checks.check_clipping(self._optimizer)
        if self._first.recorded_as is not None:
            self._refuse_other(self._first.recorded_as, with_decay=True)
        before = self._at.changes.applied_to(self._at.last)
        variables = self._model.trainable_variables
        pieces = np.split(before.theta, np.cumsum([v.value.shape.num_elements() for v in variables])[:-1])
        iteration = self._optimizer.updates_before(self._at.iteration)
        checks.check_first_step(
            self._first.losses,
            batch,
            theta=[piece.reshape(v.shape) for v, piece in zip(variables, pieces, strict=True)],
            paths=[v.path for v in variables],
            state=before.state,
            found=self._observer.used_gradient(self._first.start, before.theta, outcome, iteration),
            loss_scale=self._observer.loss_scale_in(self._at.last),
            arithmetic=checks.arithmetic_of(self._model),
        )

    def finish(self, seconds: Seconds | None) -> str:
        """Commit the run and the seconds per step, and return a summary of what was written."""
        self._end_summaries()
        if self._writer is None:
            return f"no step was taken; {self._run_dir} was not written"
        if not self._writer.is_open:
            return f"no step was taken; {self._run_dir} was not changed"
        self._notice_changes()
        at = self._at
        if at.changes.are_any or not at.is_keyframe:
            record = StepRecord(
                END,
                at.steps,
                at.changes.applied_to(at.last),
                sample_count=self._writer.sample_count,
                theta_before=at.changes.theta,
                state_before=at.changes.state,
            )
            self._writer.write_step(record)
        self._writer.finish({} if seconds is None else {"seconds_per_step": asdict(seconds)})
        return (
            f"wrote {self._at.steps} steps and {self._writer.sample_count} distinct samples "
            f"({self._writer.byte_count / 1e6:,.1f} MB) to {self._writer.run_dir}"
        )

    def flush(self) -> None:
        """Upload the steps that wait for upload."""
        if self._writer is not None:
            self._writer.flush()

    def _end_summaries(self) -> None:
        if self._summaries is not None:
            self._summaries.close()
            self._summaries = None

    def close(self) -> None:
        """Release the directory without committing. The run can be read and continued up to its last whole step."""
        self._end_summaries()
        if self._writer is not None:
            self._writer.close()


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is second or (first is not None and second is not None and np.array_equal(first, second))


def _environment(model: keras.Model) -> dict[str, Any]:
    return {
        "explaind_tf": constants.VERSION,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "python": platform.python_version(),
        "devices": sorted({device.device_type for device in tf.config.list_logical_devices()}),
        "jit_compile": bool(model.jit_compile),
        "run_eagerly": bool(model.run_eagerly),
    }
