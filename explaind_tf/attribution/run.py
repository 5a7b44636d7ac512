"""`Run`: a recorded run that answers questions."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import xarray as xr

from explaind_tf import measurements
from explaind_tf.attribution.curves import training_curves
from explaind_tf.attribution.engine import answer
from explaind_tf.attribution.planner import Plan, make_plan
from explaind_tf.attribution.streaming import attribute_to
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Block
from explaind_tf.ledgers import accessor  # noqa: F401 - registers the accessor
from explaind_tf.ledgers.ledger import build_ledger
from explaind_tf.measurements import Measurement, as_measurement
from explaind_tf.progress import Progress
from explaind_tf.questions.documented import takes_options
from explaind_tf.questions.options import Options, make_options
from explaind_tf.questions.question import ask
from explaind_tf.replay.binding import pure_model
from explaind_tf.replay.path_replay import PathReplay
from explaind_tf.replay.replay import Replay
from explaind_tf.runs import RecordedRun, WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.choose import choose_routes
from explaind_tf.sweeps.task import Task


def open_run(run_dir: str | AnyPath) -> "Run":
    """Open a recorded run. Neither the model's code nor the training data are needed.

    Parameters
    ----------
    run_dir : str, Path or UPath
        The directory that a ``PathLogger`` wrote, or its URL, in any file system that fsspec knows.

    Returns
    -------
    Run
        What was recorded, to be asked. Nothing is written to the directory.

    Raises
    ------
    RunFormatError
        If it is not a run, or a file of it is missing, cut or damaged.

    Warns
    -----
    UserWarning
        If the recording was cut short; the run is opened up to its last whole step whose samples are there.
    """
    return Run(run_dir)


class Attributable(WeightPath):
    """A path of weights that answers questions; see :func:`open_run`."""

    def _replay(self, derivatives: Derivatives, tolerance: float) -> PathReplay:
        """Return the path as the kernel sees it."""
        raise NotImplementedError

    @cached_property
    def _compiled(self) -> dict[Any, Derivatives]:
        return {}

    def _derivatives(self, measurement: Measurement) -> Derivatives:
        """Return the compiled derivatives of a measurement, compiled once for each of its functions."""
        targets = tuple((target.shape[1:], target.dtype.str) for target in measurement.targets)
        key = (measurement.function, targets)
        if key not in self._compiled:
            self._compiled[key] = Derivatives(pure_model(self, measurement))
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

            f_N − f_0 = Σ_s Φ_s·Δθ_s = data + weight_decay + regularizer + carryover + external + state + residual,

        exactly (ExPLAIND, arXiv:2505.20076, Theorem 3.1, in the form that Keras executes).

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            As the model takes them, with a batch dimension.
        measurement : Measurement or callable, optional
            What to account for, see :mod:`explaind_tf.measurements`; by default all outputs of the model.
        **options
            See :class:`explaind_tf.questions.options.Options`.
        out : str, Path or UPath, optional
            Zarr store to write to, or its URL, block by block of inputs, instead of keeping the ledger in memory. A call
            that was interrupted is repeated as it was: it goes on where it ended. What is returned reads from the store.
        progress : bool
            Whether to show progress bars (on a terminal only).

        Returns
        -------
        xarray.Dataset or xarray.DataTree
            Variables ``initial``, ``final``, ``data``, ``weight_decay``, ``regularizer``, ``carryover``, ``external``,
            ``state`` and ``residual`` (of checkpoints ``weights``, ``state`` and ``residual``, beside the first two), in
            the units of the measurement; positive entries raised it. A tree with one node a variable if
            ``"parameter"`` is kept, under its path (``output_`` for ``output`` and so on, where the ledger has a coordinate
            or a total of that name). Check it with ``ledger.explaind.check()``.

        Raises
        ------
        ValueError
            On inputs of another shape or dtype than in training, NaN, unknown axes, layers or steps, and where ``out`` holds
            anything but the begun answer to the same question.
        TypeError
            At a name that is no option.
        UnbalancedLedgerError
            If a step cannot be explained by what was recorded, or the samples do not add up to what they did together.
        MemoryError
            If the ledger would not fit into memory.
        """
        chosen = _chosen(measurement)
        task = self._task(inputs, chosen, make_options("attribute", axes=axes, **options))
        if out is not None:
            return attribute_to(out, task, chosen, Progress(progress))
        result = answer(task, choose_routes(task), Progress(progress))
        return build_ledger(self, task.question, chosen, result)

    @takes_options
    def plan(self, inputs: Any, measurement: Any = None, axes: Iterable[str] = (), **options: Any) -> Plan:
        """Say what :meth:`attribute` would do with the same arguments, how long it would take, and in how much memory.

        The passes are tried on a few steps of the run, which takes about as long as attributing these steps does.

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
            ``print`` it; ``plan.seconds``, ``plan.peak_bytes`` and ``plan.passes`` are its numbers.

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
        derivatives = self._derivatives(measurement)
        return Task(
            run=self,
            derivatives=derivatives,
            replay=self._replay(derivatives, question.tolerance),
            question=question,
            everything=Block(flat, list(measurement.targets)),
        )


class Run(RecordedRun, Attributable):
    """A recorded run that answers questions; :func:`open_run` opens one.

    Attributes
    ----------
    run_dir : Path
        Its directory.
    manifest : Manifest
        What the directory holds: variables, inputs, targets and outputs of the model, optimizer, loss, environment.
    axes : tuple of str
        What can be told apart.
    terms : tuple of str
        The causes of a ledger, and the residual.
    """

    def __init__(self, run_dir: str | AnyPath) -> None:
        super().__init__(run_dir)  # warnings count the calls between it and the user

    def _replay(self, derivatives: Derivatives, tolerance: float) -> Replay:
        return Replay(self, derivatives, tolerance)

    def curves(self, *, progress: bool = True) -> xr.Dataset:
        """Return training loss and learning rate of each step; the loss costs a forward pass of the step's batch.

        Parameters
        ----------
        progress : bool
            Whether to show a progress bar (on a terminal only).

        Returns
        -------
        xarray.Dataset
            ``loss``: Keras' loss of the batch before the step, penalties included; ``learning_rate``: 0 where a step updated
            nothing, as when gradients are accumulated. Dims (step,).
        """
        return training_curves(self, Progress(progress))

    def verify(self, *, replay: bool = True, progress: bool = True) -> None:
        """Check every byte recorded and, by replay, that each step follows from what was recorded.

        Parameters
        ----------
        replay : bool
            Whether to replay the gradient of each step and hold the optimizer's law against the recorded weights.
        progress : bool
            Whether to show a progress bar (on a terminal only).

        Raises
        ------
        RunFormatError
            If a file is damaged.
        UnbalancedLedgerError
            If a step was not taken from the recorded batch.
        """
        self.verify_files()
        if not replay:
            return
        derivatives = self._derivatives(measurements.outputs())
        with Progress(progress).task("Verify", len(self.steps)) as advance:
            for _ in Replay(self, derivatives).path_steps(0, len(self.steps), from_batches=True):
                advance()


def _chosen(measurement: Any) -> Measurement:
    return as_measurement(measurements.outputs() if measurement is None else measurement)


def _check_targets(measurement: Measurement, count: int) -> None:
    for target in measurement.targets:
        if len(target) != count:
            raise ValueError(
                f"The measurement {measurement.name!r} has labels for {len(target)} inputs; {count} inputs are attributed."
            )
