"""`PathLogger`: the callback that records a training run."""

import platform
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console

from explaind_tf import constants
from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording import checks
from explaind_tf.recording.export import PureFunctions, variable_specs
from explaind_tf.recording.observer import StepObserver, StepOutcome
from explaind_tf.recording.tap import Tap, TappedBatch
from explaind_tf.recording.writer import RunWriter, refuse_used_directory
from explaind_tf.runs.steps import END, START, STEP, StepRecord


class PathLogger(keras.callbacks.Callback):
    """Records what the ledger needs of each training step into a run directory.

    Parameters
    ----------
    run_dir : str or Path
        New or empty directory. Fits with the same logger and the same compiled model continue one run.
    verbose : bool
        Whether to say at the end of training what was written where.

    Raises
    ------
    FileExistsError
        If the directory holds anything. Nothing in it is touched.

    Notes
    -----
    List the logger before callbacks that set weights in ``on_train_batch_end``, and after those that do so in
    ``on_train_end`` (``EarlyStopping(restore_best_weights=True)``): what is set after its turn is not in the run.

    Each step writes the weights θ, the moments m and v, the non-trainable variables and the rows of the
    samples in the batch: 12 bytes a weight in float32. Whatever the ledger could not account for is refused
    with a ``RefusedError`` when training begins or at its first step.

    Examples
    --------
    >>> logger = xtf.PathLogger("runs/mod113")                       # doctest: +SKIP
    >>> model.compile(xtf.PathAdamW(1e-3), loss="mse")               # doctest: +SKIP
    >>> model.fit(logger.tap(train_ds), epochs=3, callbacks=[logger])  # doctest: +SKIP
    """

    def __init__(self, run_dir: str | Path, *, verbose: bool = True) -> None:
        super().__init__()
        self.run_dir = Path(run_dir)
        self.verbose = verbose
        refuse_used_directory(self.run_dir)
        self._tap: Tap | None = None
        self._recording: _Recording | None = None

    def tap(
        self,
        dataset: tf.data.Dataset,
        ids: str | None = None,
        class_weight: dict[int, float] | None = None,
    ) -> tf.data.Dataset:
        """Return the dataset for ``fit``, watched.

        Parameters
        ----------
        dataset : tf.data.Dataset
            Batched; shuffled, augmented or repeated as you like, before this call. Elements are ``(x, y)``,
            ``(x, y, sample_weight)``, or ``(id, (x, y[, sample_weight]))``; x, y and sample_weight may be nested. A tuple
            of targets beside an x of shape (batch,) looks like the last form: give a dict of targets then.
        ids : str, optional
            Key of the samples' ids in a dict x; the key is taken out. Without ids, samples are numbered in order
            of first appearance. Ids also group augmented views of one sample.
        class_weight : dict, optional
            Weight of each class (1 for those left out), as ``fit(class_weight=...)`` takes it; give it here instead.

        Returns
        -------
        tf.data.Dataset
            The same batches in the same order, without ids, with sample weights if ``class_weight`` is given.

        Raises
        ------
        RefusedError
            If the dataset is not batched or its elements are of another form, or if both it and class_weight weigh.
        """
        self._tap = Tap(dataset, ids, class_weight)
        return self._tap.dataset

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that this training can be accounted for, and open the run directory."""
        if self._recording is None:
            refuse_used_directory(self.run_dir)
        optimizer = checks.check_fit(self.model, self._tap, self.params)
        assert self._tap is not None  # checked
        if self._recording is None:
            self._recording = _Recording(self.model, optimizer, self._tap, self.run_dir)
        else:
            self._recording.resume(self.model, self._tap)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Notice what others changed since the step before."""
        if self._recording is not None:
            self._recording.before_step()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the step."""
        if self._recording is not None:
            self._recording.after_execution()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Commit the run."""
        if self._recording is None:
            return
        summary = self._recording.finish()
        if not self._recording.has_steps:
            self._recording = None
        if self.verbose:
            Console().print(f"PathLogger: {summary}", highlight=False, soft_wrap=True)


class _Recording:
    """One training run being recorded."""

    def __init__(self, model: keras.Model, optimizer: PathOptimizer, tap: Tap, run_dir: Path) -> None:
        checks.build_model(model, tap)
        checks.check_variables(model)
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
        self._model, self._optimizer, self._tap = model, optimizer, tap
        self._functions = PureFunctions(model, tap.inputs, tap.targets, tap.weights)
        self._observer = StepObserver(model, optimizer)
        self._data_check = checks.watch_data(model, has_weights=tap.weights is not None)
        self._compiled_loss = model._compile_loss
        self._iteration = self._observer.iteration()
        self._momentum = self._observer.momentum()  # after the last step that was recorded
        self._steps = 0
        self._theta, self._state = self._observer.weights(), self._observer.state()
        self._before: tuple[np.ndarray | None, list[np.ndarray] | None] = (None, None)
        self._start = StepRecord(
            kind=START,
            step=-1,
            theta=self._theta,
            state=self._state,
            momentum=self._observer.momentum(),
            accumulated=self._observer.accumulated(),
        )
        self._run_dir = run_dir
        self._writer: RunWriter | None = None  # nothing is written before the first step proved replayable

    @property
    def has_steps(self) -> bool:
        """Whether anything was recorded."""
        return self._writer is not None

    def resume(self, model: keras.Model, tap: Tap) -> None:
        """Go on with a further fit, checked to follow from what was recorded.

        What was changed since is found as any change between two steps, and is external.

        Raises
        ------
        RefusedError
            If the further steps would not belong to the same run.
        """
        found = None
        if model is not self._model or model.optimizer is not self._optimizer:
            found = "another model or optimizer"
        elif model._compile_loss is not self._compiled_loss:
            found = "a model that was compiled again"
        elif tap.form != self._tap.form:
            found = "a dataset with elements of another form"
        elif self._observer.iteration() != self._iteration or not _same(
            self._observer.momentum(), self._momentum
        ):
            found = "an optimizer that was stepped or set since, outside of what is recorded"
        if found is not None:
            raise RefusedError(
                f"This PathLogger recorded a fit into {self._run_dir} and was now given {found}. A run that is continued "
                f"needs the same compiled model, dataset form and optimizer state. Record this fit on its own, with a new "
                f"PathLogger and directory: its momentum is then booked as carried over."
            )
        self._tap = tap

    def _begin_run(self) -> RunWriter:
        writer = RunWriter(self._run_dir)
        self._functions.save(str(writer.run_dir / constants.GRAPHS_DIR))
        decayed = self._optimizer.decay_mask(self._model.trainable_variables)
        law = self._optimizer.law()
        writer.begin(
            variables=variable_specs(self._model.trainable_variables, decayed),
            state=variable_specs(self._model.non_trainable_variables),
            optimizer={
                "law": law.name,
                "constants": law.to_config(),
                "second_moment": law.divides_by_second_moment,
                "accumulates": self._optimizer.gradient_accumulation_steps or 1,
                "clipvalue": self._optimizer.clipvalue,
            },
            loss={
                "losses": self._functions.found.losses,
                "has_regularizer": self._functions.has_penalty,
            },
            inputs=self._tap.inputs,
            targets=self._tap.targets,
            weights=self._tap.weights,
            outputs=self._functions.found.outputs,
            environment=_environment(self._model),
        )
        writer.write_step(self._start)
        return writer

    def before_step(self) -> None:
        self._tap.open()
        self._data_check.is_armed = True
        self._notice_changes()

    def _notice_changes(self) -> None:
        theta, state = self._observer.weights(), self._observer.state()
        self._before = (
            None if np.array_equal(theta, self._theta) else theta,
            None if _all_equal(state, self._state) else state,
        )

    def after_execution(self) -> None:
        """Record the steps that one execution took."""
        self._tap.close()
        taken = self._observer.iteration() - self._iteration
        if taken > self._model.steps_per_execution:
            raise RefusedError(
                f"The optimizer counted {taken} steps in one execution; {self._model.steps_per_execution} at most were "
                f"expected. Do not step the optimizer outside of fit() while it records."
            )
        for _ in range(taken):
            self._record_step(self._tap.next_batch(), self._observer.outcome(self._iteration))
            self._steps += 1
            self._iteration += 1
            self._before = (None, None)

    def _record_step(self, batch: TappedBatch, outcome: StepOutcome) -> None:
        if not np.isfinite(outcome.theta).all():
            kept = f" The {self._steps} steps before are in {self._run_dir}." if self._steps else ""
            raise RefusedError(
                f"The weights became NaN or infinite in step {self._steps}: from there on no prediction can be "
                f"accounted for.{kept} Look for NaN in the data or lower the learning rate."
            )
        if self._writer is None:
            self._check_first_step(batch, outcome)
            self._writer = self._begin_run()
        elif not self._writer.is_open:
            self._writer.open_shards()
        rows = self._writer.write_samples(batch)
        self._theta, self._state, self._momentum = outcome.theta, outcome.state, outcome.momentum
        self._writer.write_step(
            StepRecord(
                kind=STEP,
                step=self._steps,
                theta=outcome.theta,
                state=outcome.state,
                updates=outcome.scalars is not None,
                iteration=self._optimizer.updates_before(self._iteration),
                learning_rate=0.0 if outcome.scalars is None else outcome.scalars.learning_rate,
                rows=rows,
                weights=batch.weights,
                momentum=None if outcome.scalars is None else outcome.momentum,
                second_moment=outcome.second_moment,
                clip_factors=outcome.clip_factors,
                theta_stepped=outcome.theta_stepped,
                theta_before=self._before[0],
                state_before=self._before[1],
            )
        )

    def _check_first_step(self, batch: TappedBatch, outcome: StepOutcome) -> None:
        checks.check_clipping(self._optimizer)
        theta_before = self._theta if self._before[0] is None else self._before[0]
        offsets = np.cumsum([v.value.shape.num_elements() for v in self._model.trainable_variables])[:-1]
        pieces = np.split(theta_before, offsets)
        checks.check_first_step(
            self._functions,
            batch,
            theta=[
                piece.reshape(v.shape)
                for piece, v in zip(pieces, self._model.trainable_variables, strict=True)
            ],
            state=self._state if self._before[1] is None else self._before[1],
            used=self._observer.used_gradient(self._start, theta_before, outcome),
        )

    def finish(self) -> str:
        if self._writer is None:
            return f"no step was taken; {self._run_dir} was not written"
        if not self._writer.is_open:
            return f"no step was taken; {self._run_dir} is as it was"
        self._notice_changes()
        if any(part is not None for part in self._before):
            theta, state = self._before
            self._writer.write_step(
                StepRecord(
                    kind=END,
                    step=self._steps,
                    theta=self._theta if theta is None else theta,
                    state=self._state if state is None else state,
                    theta_before=theta,
                    state_before=state,
                )
            )
        self._writer.finish()
        return (
            f"wrote {self._steps} steps and {self._writer.sample_count} distinct samples "
            f"({self._writer.byte_count / 1e6:,.1f} MB) to {self._writer.run_dir}"
        )


def _same(first: np.ndarray | None, second: np.ndarray | None) -> bool:
    return first is second or (first is not None and second is not None and np.array_equal(first, second))


def _all_equal(first: list[np.ndarray], second: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


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
