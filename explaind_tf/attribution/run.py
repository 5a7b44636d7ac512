"""`Run`: a recorded run that answers questions."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.attribution.counterfactual import respond
from explaind_tf.attribution.curves import training_curves
from explaind_tf.attribution.engine import answer
from explaind_tf.attribution.planner import Plan, make_plan
from explaind_tf.attribution.ranking import warn_of_ranking
from explaind_tf.attribution.streaming import attribute_to
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.functions import Block
from explaind_tf.ledgers import accessor  # noqa: F401 - registers the accessor
from explaind_tf.levels import PATH, SAMPLE
from explaind_tf.measurements import Measurement, as_measurement
from explaind_tf.progress import Progress
from explaind_tf.questions.documented import takes_options
from explaind_tf.questions.options import Options, make_options
from explaind_tf.questions.question import ask
from explaind_tf.replay.binding import pure_model
from explaind_tf.replay.checkpoint_replay import CheckpointReplay
from explaind_tf.replay.path_replay import PathReplay
from explaind_tf.replay.replay import Replay
from explaind_tf.runs import RecordedRun, WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.choose import choose_routes
from explaind_tf.sweeps.task import Task


def open_run(run_dir: str | AnyPath) -> "Run":
    """Open a recorded run. Neither the model's code nor the dataset is needed.

    The run directory itself holds the model's functions and copies of the training samples, so protect it like the data.

    Parameters
    ----------
    run_dir : str, Path or UPath
        The directory that a ``PathLogger`` wrote, or its URL in any file system that fsspec knows.

    Returns
    -------
    Run
        The run, which answers questions. Nothing is written to the directory.

    Raises
    ------
    RunFormatError
        If it is not a run, or one of its files is missing, cut or damaged.

    Warns
    -----
    UserWarning
        If the recording was cut short. The run is opened up to its last whole step whose samples are there.
    """
    return Run(run_dir)


class Attributable(WeightPath):
    """A path of weights that answers questions; see :func:`open_run`."""

    def _replay(self, precisions: Precisions, tolerance: float) -> PathReplay:
        """Return the path in the form that the kernel needs."""
        raise NotImplementedError

    @cached_property
    def _compiled(self) -> dict[Any, Derivatives]:
        return {}

    def _precisions(self, measurement: Measurement, dtype: tf.DType | None = None) -> Precisions:
        """Return the derivatives of a measurement in a precision, and in that of training."""
        as_trained = self._derivatives(measurement, None)
        wanted = self.weights_dtype if dtype is None else dtype
        if not self.computes_otherwise(wanted):
            return Precisions(as_trained, as_trained)
        return Precisions(self._derivatives(measurement, wanted), as_trained)

    def _derivatives(self, measurement: Measurement, dtype: tf.DType | None) -> Derivatives:
        """Return the compiled derivatives of a measurement. Each function is compiled once."""
        targets = tuple((target.shape[1:], target.dtype.str) for target in measurement.targets)
        key = (measurement.function, targets, dtype)
        if key not in self._compiled:
            self._compiled[key] = Derivatives(pure_model(self, measurement, dtype))
        return self._compiled[key]

    @takes_options
    def attribute(
        self,
        inputs: Any,
        measurement: Any = None,
        axes: Iterable[str] = (),
        *,
        out: str | AnyPath | None = None,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset | xr.DataTree:
        """Account for the change of each measurement by sample, layer or weight, and step.

        With Φ_s(x) = ∫₀¹ ∂f/∂θ (x; θ_s + tΔθ_s) dt and Keras' displacement Δθ_s = −η_sλ w⊙θ_s − P_s m_s + …,

            f_N − f_0 = Σ_s Φ_s·Δθ_s
                      = data + rounding + weight_decay + regularizer + carryover + external + state
                        + precision + jumps + residual,

        exactly (ExPLAIND, arXiv:2505.20076, Theorem 3.1, in the form that Keras executes). The terms are the changes by

        - ``data``: the gradients of training samples,
        - ``weight_decay``: the optimizer's weight decay,
        - ``regularizer``: the gradients of regularisers and of ``add_loss``,
        - ``rounding``: what the split over samples, tokens or groups lost to rounding: the gradient that the optimizer used,
          less the sum of their gradients. Ledgers without these axes do not have it; their ``data`` holds it,
        - ``carryover``: momentum that training before this run left in the optimizer; zero for a fresh optimizer,
        - ``external``: weights that something other than the optimizer set, such as callbacks or constraints. Where the
          optimizer's law does not explain a step, what it misses is here, and ``attrs["unexplained_steps"]`` has the step,
        - ``state``: the drift of BatchNorm's statistics and of other state that no gradient moves,
        - ``jumps``: how far the model jumped, where it rounds, takes signs, or chooses the largest. Only models that may
          jump have it,
        - ``precision``: what the model as it is predicts beyond the same model in the precision of the analysis. Only models
          that compute in bfloat16 or float16 have it, and questions with ``dtype="float64"``,
        - ``residual``: nothing known. It is the error of the quadrature, and rounding.

        The residual is measured, and it is a term itself. So the terms of every ledger add up, and the size of the residual
        shows how exact the sum is. ``ledger.explaind.check()`` raises an error if it exceeds the tolerance. This method
        returns the ledger in either case.

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            The inputs whose predictions to account for, as the model takes them, with a batch dimension.
        measurement : Measurement or callable, optional
            What to account for, see :mod:`explaind_tf.measurements`. By default all outputs of the model.
        **options
            See :class:`explaind_tf.questions.options.Options`.
        out : str, Path or UPath, optional
            Zarr store, or its URL. The ledger is written to it block by block of inputs, instead of being kept in memory.
            Repeat an interrupted call unchanged, and it goes on where it ended. The returned ledger reads from the store.
        progress : bool
            Whether to show progress bars (on a terminal only).

        Returns
        -------
        xarray.Dataset or xarray.DataTree
            Variables ``initial`` and ``final``, and the terms above (for checkpoints ``weights``, ``state`` and
            ``residual``). They are in the units of the measurement, and a positive entry raised it. With ``"parameter"`` the
            ledger is a tree with one node for each variable, under the variable's path. A node whose name the ledger itself
            uses gets an underscore: ``output_`` for ``output``.

        Raises
        ------
        ValueError
            If inputs have NaN or another shape or dtype than in training; if axes, layers or steps are unknown; or if
            ``out`` holds anything but the begun answer to the same question.
        TypeError
            If a name is not an option.
        UnbalancedLedgerError
            If the record does not explain a step, or the entries of the samples do not add up to the change by all of
            them together. A residual above the tolerance is no error here, but in ``ledger.explaind.check()``.
        MemoryError
            If the ledger would take more memory than is allowed.
        """
        chosen = _chosen(measurement)
        task = self._task(inputs, chosen, make_options("attribute", axes=axes, **options))
        if out is not None:
            ledger = attribute_to(out, task, chosen, Progress(progress))
        else:
            ledger = answer(task, chosen, choose_routes(task), Progress(progress))
        if task.question.options.conditioning:
            warn_of_ranking(ledger)
        return ledger

    @takes_options
    def plan(self, inputs: Any, measurement: Any = None, axes: Iterable[str] = (), **options: Any) -> Plan:
        """Estimate the time and memory that :meth:`attribute` would take with the same arguments, and name its routes.

        The passes are tried on a few steps of the run. This takes about as long as attributing these steps.

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            As for :meth:`attribute`.
        measurement : Measurement or callable, optional
            As for :meth:`attribute`.
        **options
            See :class:`explaind_tf.questions.options.Options`.

        Returns
        -------
        Plan
            ``print`` it for a table. Its numbers are ``plan.seconds``, ``plan.peak_bytes`` and ``plan.passes``.

        Raises
        ------
        ValueError, TypeError
            As :meth:`attribute` does.
        """
        task = self._task(inputs, _chosen(measurement), make_options("plan", axes=axes, **options))
        return make_plan(task, choose_routes(task))

    def _task(self, inputs: Any, measurement: Measurement, options: Options) -> Task:
        question = ask(self, options)
        flat = struct.as_batches(self.manifest.inputs, inputs, "inputs")
        _check_targets(measurement, len(flat[0]))
        precisions = self._precisions(measurement, question.dtype)
        if not precisions.analysed.measurement.may_jump:
            question = question.without(names.JUMPS)
        return Task(
            run=self,
            precisions=precisions,
            replay=self._replay(precisions, question.tolerance),
            question=question,
            everything=Block(flat, list(measurement.targets)),
        )


class Run(RecordedRun, Attributable):
    """A recorded run that answers questions; :func:`open_run` opens one.

    Attributes
    ----------
    run_dir : Path
        The run's directory.
    manifest : Manifest
        Description of the run: variables, inputs, targets and outputs of the model, optimizer, loss, environment.
    axes : tuple of str
        The axes over which a ledger can be split.
    terms : tuple of str
        The terms of a ledger: the causes, and the residual.
    """

    def __init__(self, run_dir: str | AnyPath) -> None:
        super().__init__(run_dir)  # warnings count the calls between it and the user

    def _replay(self, precisions: Precisions, tolerance: float) -> PathReplay:
        if self.level == PATH:
            return CheckpointReplay(self, precisions.analysed.model.dtype.as_numpy_dtype)
        return Replay(self, precisions, tolerance, self._checked_updates)

    @cached_property
    def _checked_updates(self) -> set[int]:
        """The updates whose batches were found to be those that trained."""
        return set()

    def counterfactual(
        self,
        inputs: Any,
        measurement: Any = None,
        axes: Iterable[str] = (names.SAMPLE,),
        *,
        progress: bool = True,
        **options: Any,
    ) -> xr.Dataset:
        """Return how the final measurement would have changed with other weights of samples, to first order."""
        chosen = _chosen(measurement)
        task = self._task(inputs, chosen, make_options("counterfactual", axes=axes, **options))
        return respond(task, chosen, Progress(progress))

    def curves(self, *, progress: bool = True) -> xr.Dataset:
        """Return training loss and learning rate of each step. The loss takes a forward pass of the step's batch.

        Parameters
        ----------
        progress : bool
            Whether to show a progress bar (on a terminal only).

        Returns
        -------
        xarray.Dataset
            ``loss``: Keras' loss of the batch before the step, including penalties. ``learning_rate``: 0 if a step updated
            nothing, as when gradients are accumulated. Dims (step,).
        """
        return training_curves(self, Progress(progress))

    def verify(self, *, replay: bool = True, progress: bool = True) -> None:
        """Check every recorded byte and, by replay, that each step follows from the record; return nothing if all is well.

        Parameters
        ----------
        replay : bool
            Whether to compute the gradient of each step's batch again and compare it with the one that the optimizer used,
            and the optimizer's law with the recorded weights. A run of the level ``"cause"`` has no losses, so only the law
            is checked. One of the level ``"path"`` has neither.
        progress : bool
            Whether to show a progress bar (on a terminal only).

        Raises
        ------
        RunFormatError
            If a file is damaged.
        UnbalancedLedgerError
            If an update used another gradient than its recorded batch gives, beyond rounding. Or if the law misses a step
            by more than 1 % of the largest step so far.
        """
        self.verify_files()
        if not replay or self.level == PATH:
            return
        recorded = Replay(self, self._precisions(measurements.outputs()), is_strict=True)
        with Progress(progress).task("Verify", len(self.steps)) as advance:
            for _ in recorded.path_steps(0, len(self.steps), check_batches=self.level == SAMPLE):
                advance()


def _chosen(measurement: Any) -> Measurement:
    return as_measurement(measurements.outputs() if measurement is None else measurement)


def _check_targets(measurement: Measurement, count: int) -> None:
    for target in measurement.targets:
        if len(target) != count:
            raise ValueError(
                f"The measurement {measurement.name!r} has labels for {len(target)} inputs; {count} inputs are attributed. "
                f"Give one label for each input."
            )
