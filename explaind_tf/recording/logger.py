"""`PathLogger`: the callback that records a training run."""

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import keras
import tensorflow as tf
from rich.console import Console

from explaind_tf import constants
from explaind_tf.errors import OtherWriterError, RefusedError
from explaind_tf.levels import MEANING, SAMPLE, Level
from explaind_tf.recording import checks
from explaind_tf.recording.ending import NOT_RECORDED, after_divergence, after_failure, failure
from explaind_tf.recording.forecast import Planned
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.recording.observing.tap import Tap
from explaind_tf.recording.observing.watched_step import WatchedStep
from explaind_tf.recording.recording_options import OnError, RecordingOptions, Variables
from explaind_tf.recording.resuming import opened_to_resume
from explaind_tf.recording.session import Session
from explaind_tf.recording.session_state import Training
from explaind_tf.recording.step_clock import StepClock
from explaind_tf.recording.writing.places import refuse_used_directory
from explaind_tf.runs.estimate import describe
from explaind_tf.runs.storage.files import AnyPath, as_path, free_bytes, refresh

# TensorFlow writes the graphs and raises its own errors. Keras would take one of them, OutOfRangeError, for the end of
# the data.
_CANNOT_WRITE = (OSError, tf.errors.OpError)

# Number of steps before the estimate is printed. Its times leave out the first step, which includes tracing.
_STEPS_UNTIL_ESTIMATE = 3


class PathLogger(keras.callbacks.Callback):
    """Records what the ledger needs of each training step into a run directory.

    Parameters
    ----------
    run_dir : str, Path or UPath
        New or empty directory, or its URL (``gs://bucket/run``), see the notes. Fits with the same logger and the same
        compiled model continue one run.
    every : int or "auto"
        Steps from one keyframe to the next. A keyframe holds all weights, moments and states. For the steps between
        keyframes, the run holds the batch, a few numbers and a digest of the weights. Analysis trains these steps again
        and checks them against the digests. ``"auto"`` takes the smallest number that ``disk_budget`` allows.
    resume : bool
        Whether to continue the run in the directory, if there is one. Compile model and optimizer as before. When ``fit``
        begins, they are set to the state in which the run stopped. ``fit`` draws the data as usual: give
        ``initial_epoch``.
    disk_budget : int, optional
        Bytes that the run may take with ``every="auto"``. Default: a quarter of the free disk.
    on_error : {"raise", "warn"}
        What to do when a step cannot be written (the disk is full): end training with the error, or warn and continue
        training without recording. In both cases, what was recorded before is kept and can be continued.
    tensorboard : str or Path, optional
        Log directory of TensorBoard, for the learning rate of each step and the length of each layer's displacement.
    ids : str, optional
        Key of the samples' ids in a dict of inputs x, beside the inputs. The model is trained without the key. Default: the
        samples are numbered in the order in which training first used them. Samples are told apart by their content; ids
        also group augmented views of one sample.
    model : keras.Model, optional
        The model whose predictions to account for, if it is a part of the one that is fitted, such as the generator of a
        GAN. The run then has the level ``"path"``. Default: the model that is fitted.
    require : {"sample", "cause", "path"}, optional
        The least that the run must tell: by training sample; by cause (data, weight decay, …), step, and layer or weight;
        or by step, and layer or weight. The run tells all that can be known of the training. A training of which less can
        be known is refused at its first step at the latest. Default: ``"sample"`` with a path optimizer, and ``"path"``
        with any other.
    retrain : bool
        Whether to keep the training step itself, for :meth:`explaind_tf.Run.retrain`, which trains again with other weights
        of samples. It takes about the bytes of one keyframe and of the model's functions, and a second or so at the first
        step. A step that cannot be kept, as with ``run_eagerly=True``, is left out. Keyframes need the step in any case.
    variables : str, sequence of str, or callable, optional
        Which trainable variables may move: patterns of their paths, such as ``"*lora*"``, or a function that tells it of a
        path. A training that moves others is refused before it begins. What a step takes is then said before the first one.
        Default: all.
    verbose : bool
        Whether to print after some steps what the run will take, and at the end of training what was written where.

    Raises
    ------
    FileExistsError
        If the directory is not empty and ``resume`` is not set. Nothing in it is changed.
    ValueError
        If an argument has none of the values above.
    RefusedError
        If ``tensorboard`` is given but TensorBoard is not installed.

    Notes
    -----
    List the logger before callbacks that set weights in ``on_train_batch_end``, and after those that set them in
    ``on_train_end`` (``EarlyStopping(restore_best_weights=True)``). Changes made after the logger's turn are not recorded.

    A keyframe holds the weights θ, the moments m and v, the non-trainable variables and the rows of the
    samples in the batch: 12 bytes per weight in float32. Frozen weights, and whatever else still is as it was before
    training, are recorded once. A training that the ledger could not account for is refused
    with a ``RefusedError`` when it begins or at its first step. If weights become NaN or infinite in a later step, training
    goes on without being recorded: a ``RuntimeWarning`` says where it began, and the run is complete up to the step before.

    A URL must name an object store that fsspec knows, with its package installed. Objects cannot be appended to, so steps
    are written to a temporary local directory first. They are uploaded with a new manifest when they are a minute old or
    256 MiB, and training waits for the upload. A manifest refers only to whole objects. Unlike in a local directory, steps
    that wait for upload are lost if the process ends: :attr:`kept_steps` does not count them. The free space is not known,
    so ``every="auto"`` needs a budget.

    A run has one writer at a time. A second one is refused with an ``OtherWriterError``, a ``RefusedError``. In a local
    directory the operating system holds the lock. At a URL the object ``writer.json`` names the writer. If that process is
    killed, the run can be continued at once on the same machine, and from another one two minutes later.

    Examples
    --------
    >>> logger = xtf.PathLogger("runs/mod113")                       # doctest: +SKIP
    >>> model.compile(xtf.PathAdamW(1e-3), loss="mse")               # doctest: +SKIP
    >>> model.fit(x_train, y_train, epochs=3, callbacks=[logger])    # doctest: +SKIP
    """

    def __init__(
        self,
        run_dir: str | AnyPath,
        *,
        every: int | Literal["auto"] = 1,
        resume: bool = False,
        disk_budget: int | None = None,
        on_error: OnError = "raise",
        tensorboard: str | Path | None = None,
        ids: str | None = None,
        model: keras.Model | None = None,
        require: Level | None = None,
        retrain: bool = True,
        variables: Variables | None = None,
        verbose: bool = True,
    ) -> None:
        super().__init__()
        self.run_dir = as_path(run_dir)
        self.verbose = verbose
        self._options = RecordingOptions(
            every, disk_budget, resume, on_error, tensorboard, ids, model, require, retrain, variables
        )
        self._tap: Tap | None = None
        self._watched: WatchedStep | None = None
        self._session: Session | None = None
        self._unrecorded = ""  # why no more steps are recorded
        self._refuses_fits = False  # whether that is a reason to refuse a further fit
        self._clock = StepClock()
        self._kept = 0
        self._refuse_used()

    def _refuse_used(self) -> None:
        if not self._resumes:
            refuse_used_directory(self.run_dir, but_for_begun=self._options.resume)

    @property
    def _resumes(self) -> bool:
        refresh(self.run_dir)
        return self._options.resume and (self.run_dir / constants.MANIFEST_FILE).exists()

    def tap(
        self,
        dataset: tf.data.Dataset,
        ids: str | None = None,
        class_weight: dict[int, float] | None = None,
    ) -> tf.data.Dataset:
        """Return the dataset to give to ``fit``: without the ids that it carries, which then label the samples.

        Only a dataset that carries ids needs this. The batches are observed where the training step receives them.

        Parameters
        ----------
        dataset : tf.data.Dataset
            Batched dataset. Elements are those that ``fit`` takes, or ``(id, (x, y[, sample_weight]))``; x, y and
            sample_weight may be nested. A tuple of targets with an x of shape (batch,) looks like the last form: then give
            the targets as a dict. If there are ids, change the samples (augment, cast, pad) before this call. Shuffle,
            repeat, cache or prefetch them before or after.
        ids : str, optional
            Key of the samples' ids in a dict x. The key is removed from x.
        class_weight : dict, optional
            Weight of each class (1 for classes left out), in the form of ``fit(class_weight=...)``. Give it here instead.

        Returns
        -------
        tf.data.Dataset
            The same batches in the same order, without ids, with sample weights if ``class_weight`` is given. If there are
            neither, the dataset itself.

        Raises
        ------
        RefusedError
            If the dataset is not batched, its elements have another form, or both sample weights and ``class_weight``
            are given.
        """
        self._tap = Tap(dataset, ids, class_weight)
        return self._tap.dataset

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check that this training can be accounted for, and open the run directory."""
        if self._unrecorded:
            self._refuse_after_end()
            return
        if self._session is None:
            self._refuse_used()
        checks.check_fit(self.model, self._options, self.params)
        checks.check_call(self._accounted)
        if self._session is not None:
            self._session.resume(self.model, self._tap)
        else:
            self._watched = WatchedStep(self.model, self._meet, self._options.ids)
            # Variables of a model that is not built are made when its first step is traced, unless its inputs are known.
            if self._tap is not None and self._options.model is None:
                checks.build_model(self.model, self._tap.form)
            if self.model.built or self._options.model is not None:
                self._begin()
        assert self._watched is not None  # made with the session
        self._watched.attach()

    @contextmanager
    def step(self, x: Any = None, y: Any = None, sample_weight: Any = None) -> Iterator[None]:
        """Record one step of a training loop of one's own: what happens to the weights within the ``with`` block.

        The logger needs to know the model, ``PathLogger(run_dir, model=model)``, and the end of the training:
        ``with PathLogger(...) as logger:`` around the loop, or ``logger.on_train_end()``.

        Parameters
        ----------
        x, y, sample_weight : array or nested structure of arrays, optional
            The batch of the step. With it, and a model that was compiled with a path optimizer and the loss that the loop
            uses, steps are recorded by sample.

        Returns
        -------
        context manager
            Take the step within it.

        Raises
        ------
        RefusedError
            If the step cannot be recorded.

        Examples
        --------
        >>> with xtf.PathLogger("runs/policy", model=actor) as logger:   # doctest: +SKIP
        ...     for observations, rewards in episodes:
        ...         with logger.step():
        ...             train(actor, observations, rewards)
        """
        if self.model is None:
            if self._options.model is None:
                raise RefusedError(
                    "The logger does not know which model the loop trains. Give it: PathLogger(run_dir, model=model)."
                )
            self.set_model(self._options.model)
        if self._watched is None:
            checks.check_loop(self.model)
            self._refuse_used()
            self._watched = WatchedStep(self.model, self._meet, self._options.ids)
            self._begin()
        self.on_train_batch_begin(self._session.steps if self._session is not None else 0)
        self._watched.see(_as_tensors(x, y, sample_weight))
        yield
        self.on_train_batch_end(0)

    def __enter__(self) -> "PathLogger":
        """Return the logger, for a training loop of one's own."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Commit the run; after an error, keep the steps that were recorded before it."""
        if kind is None:
            self.on_train_end()
        else:
            self.close()

    def _meet(self, data: Any) -> BatchForm | None:
        """Take note of the form of the data, before the first step."""
        if self._unrecorded:
            return None
        if self._session is None:
            if self._options.model is None:
                checks.build_model(self.model, BatchForm.of(data))
            self._begin()
        assert self._session is not None  # just made
        try:
            return self._session.meet(data)
        except RefusedError:
            if not self._session.has_steps:  # the next fit begins anew
                self._session = None
            raise

    @property
    def _accounted(self) -> keras.Model:
        """The model whose predictions are accounted for."""
        return self.model if self._options.model is None else self._options.model

    def _begin(self) -> None:
        assert self._watched is not None  # made before
        model = self._accounted
        checks.check_variables(model)
        checks.check_moving(model, self._options)
        per_epoch = (self.params or {}).get("steps")  # a loop of one's own has no parameters
        planned = None if per_epoch is None else Planned(per_epoch * self.params["epochs"], per_epoch)
        run = opened_to_resume(self.run_dir) if self._resumes else None
        training = Training(self.model, model, checks.known_optimizer(self.model, model), self._watched)
        standing = checks.standing_of(self.model, training.optimizer, self._options, run)
        self._session = Session(training, self._tap, self.run_dir, self._options, planned, standing, run)
        if self._options.variables is not None and self.verbose:
            self._say(self._session.moving)
        if run is not None and self.verbose:
            kept, recorded = self._session.steps, len(run.step_store)
            of_all = "its" if kept == recorded else f"{kept} of its"
            self._say(f"continues {self.run_dir} after {of_all} {recorded} steps")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record what was changed since the previous step."""
        if self._watched is None or self._unrecorded:
            return
        self._watched.open()
        if self._session is not None:
            self._session.before_step()
        self._clock.begin()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Record the step.

        Raises
        ------
        OSError
            If the step cannot be written, unless ``on_error="warn"``.
        """
        if self._session is None or self._unrecorded:
            return
        self._clock.trained()
        before = self._session.steps
        try:
            self._session.after_execution()
            if self._session.divergence is not None:
                self._finish()
        except FileExistsError:  # another program has used the directory first
            raise
        except OtherWriterError as error:
            self._give_way(error)
        except _CANNOT_WRITE as error:
            self._fail(error)
        if self._unrecorded:
            return
        standing = self._session.standing
        if before == 0 and self._session.steps and standing.level != SAMPLE and self.verbose:
            self._say(
                f"records at the level {standing.level!r}, {MEANING[standing.level]}. {standing.reason}"
            )
        was_timed = self._clock.recorded(self._session.steps - before)
        is_due = was_timed and len(self._clock) == _STEPS_UNTIL_ESTIMATE
        if is_due and self.verbose and self._session.estimate is not None:
            self._say(describe(self._session.estimate, free_bytes(self.run_dir), self._clock.seconds()))

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Commit the run."""
        if self._watched is not None:
            self._watched.detach()
        if self._session is None or self._unrecorded:
            return
        try:
            self._finish()
        except OtherWriterError as error:
            self._give_way(error)
        except _CANNOT_WRITE as error:
            self._fail(error)

    def _finish(self) -> None:
        """Commit the run. If the training diverged, say where: training goes on, but is not recorded."""
        assert self._session is not None  # it is what ends
        summary, divergence = self._session.finish(self._clock.seconds()), self._session.divergence
        if divergence is not None:
            self._unrecorded = after_divergence(divergence, self.run_dir)
            warnings.warn(self._unrecorded, RuntimeWarning, stacklevel=3)
        elif not self._session.has_steps:
            self._session = None
        if self.verbose:
            self._say(summary)

    def close(self) -> None:
        """Release the run directory after an interrupted ``fit``. The recorded steps are kept and can be continued."""
        if self._watched is not None:
            self._watched.detach()
        if self._session is not None:
            try:
                self._session.flush()
            finally:
                self._kept = self._session.kept_steps[0]
                self._session.close()
                self._session = None

    def _fail(self, error: OSError | tf.errors.OpError) -> None:
        assert self._session is not None  # it is what failed
        self._unrecorded, self._refuses_fits = after_failure(self.run_dir), self._options.on_error == "raise"
        self._session.close()
        message = failure(error, self.run_dir, *self._session.kept_steps)
        if self._refuses_fits:
            code = error.errno if isinstance(error, OSError) else None
            raise OSError(code or errno.EIO, message) from error
        warnings.warn(f"{message} {NOT_RECORDED}", stacklevel=2)

    def _give_way(self, error: OtherWriterError) -> None:
        """End the recording, since another writer has the run."""
        assert self._session is not None  # it is what was refused
        self._unrecorded, self._refuses_fits = str(error), self._options.on_error == "raise"
        self._session.close()
        if self._refuses_fits:
            raise error
        warnings.warn(f"{error} {NOT_RECORDED}", stacklevel=2)

    @property
    def kept_steps(self) -> int:
        """Number of steps that are kept, however the process ends.

        In a local directory these are all recorded steps. The operating system has them, so only a power cut can take the
        last of them, until the fit ends. At a URL they are the steps that are uploaded and named by the manifest.
        """
        if self._session is not None:
            self._kept = self._session.kept_steps[0]
        return self._kept

    def _refuse_after_end(self) -> None:
        """Refuse a further fit, or warn that it is not recorded."""
        if self._refuses_fits:
            raise RefusedError(self._unrecorded)
        warnings.warn(f"{self._unrecorded} {NOT_RECORDED}", stacklevel=2)

    def _say(self, line: str) -> None:
        Console().print(f"PathLogger: {line}", highlight=False, soft_wrap=True)


def _as_tensors(x: Any, y: Any, sample_weight: Any) -> Any:
    """Return a batch in the form in which ``train_step`` receives it."""
    data = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
    return tf.nest.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), data)
