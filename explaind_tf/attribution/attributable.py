"""`Attributable`: a path of weights that answers questions."""

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import tensorflow as tf
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.attribution.engine import Answerer, ThisProcess
from explaind_tf.attribution.exploring import explorer
from explaind_tf.attribution.failing_graphs import failing_graphs
from explaind_tf.attribution.planner import Plan, make_plan
from explaind_tf.attribution.predictions import final_values
from explaind_tf.attribution.ranking import warn_of_ranking
from explaind_tf.attribution.streaming import attribute_to
from explaind_tf.errors import RefusedError
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.functions import Block
from explaind_tf.measurements import Measurement, as_measurement
from explaind_tf.old_objects import old_objects_aside
from explaind_tf.progress import Progress, progress_of
from explaind_tf.questions.documented import takes_options
from explaind_tf.questions.options import Options, make_options
from explaind_tf.questions.question import ask
from explaind_tf.replay.binding import pure_model
from explaind_tf.replay.path_replay import PathReplay
from explaind_tf.runs import WeightPath
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.choose import choose_routes
from explaind_tf.sweeps.task import Task


class Attributable(WeightPath):
    """A path of weights that answers questions; see :func:`open_run`."""

    def _replay(self, precisions: Precisions, tolerance: float) -> PathReplay:
        """Return the path in the form that the kernel needs."""
        raise NotImplementedError

    def _workers(self, client: Any) -> Answerer:
        """Return who answers with the workers of a client."""
        raise RefusedError(
            f"Workers open a run under its path, and {self!r} is in the memory of this process. Leave client= out."
        )

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
        client: Any = None,
        progress: bool | Progress = True,
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
        client : dask.distributed.Client, optional
            Whose workers compute the ledger, by parts of the inputs and of the steps (docs/how-to/workers.md). They open the
            run under its path or URL. By default this process computes it.
        progress : bool or Progress
            Whether to show progress bars (on a terminal only); or what is told of each step instead, see
            :class:`explaind_tf.progress.Progress`.

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
        WorkersError
            If the workers of a client could not compute a part.
        """
        chosen = chosen_measurement(measurement)
        asked = make_options("attribute", axes=axes, **options)
        bars = progress_of(progress)
        with failing_graphs(self), old_objects_aside():
            task = self._task(inputs, chosen, asked)
            answerer = ThisProcess() if client is None else self._workers(client)
            if out is not None:
                ledger = attribute_to(out, task, chosen, answerer, bars)
            else:
                ledger = answerer.answer(task, chosen, answerer.choose(task, chosen), bars)
        if task.question.options.conditioning:
            warn_of_ranking(ledger)
        return ledger

    @takes_options
    def plan(
        self,
        inputs: Any,
        measurement: Any = None,
        axes: Iterable[str] = (),
        *,
        workers: int | None = None,
        **options: Any,
    ) -> Plan:
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
        workers : int, optional
            Also say what so many workers of a ``client`` would take, by a model (docs/costs.md): ``plan.shared``, with the
            number of workers beyond which more of them help little.

        Returns
        -------
        Plan
            ``print`` it for a table. Its numbers are ``plan.seconds``, ``plan.peak_bytes`` and ``plan.passes``.

        Raises
        ------
        ValueError, TypeError
            As :meth:`attribute` does.
        """
        asked = make_options("plan", axes=axes, **options)
        with failing_graphs(self), old_objects_aside():
            task = self._task(inputs, chosen_measurement(measurement), asked)
            return make_plan(task, choose_routes(task), workers)

    def measure(self, inputs: Any, measurement: Any = None) -> xr.DataArray:
        """Return what the trained model predicts: a measurement of it, with the final weights and state.

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            As for :meth:`attribute`.
        measurement : Measurement or callable, optional
            As for :meth:`attribute`.

        Returns
        -------
        xarray.DataArray
            The measurement, dims (input, output). It is the ``final`` of a ledger of all steps.

        Raises
        ------
        ValueError
            If inputs have NaN or another shape or dtype than in training.
        """
        chosen = chosen_measurement(measurement)
        with failing_graphs(self), old_objects_aside():
            return final_values(self._task(inputs, chosen, make_options("attribute")), chosen)

    def explore(
        self,
        x: Any = None,
        y: Any = None,
        measurement: Any = None,
        *,
        tolerance: float = 1e-3,
        vocabulary: Sequence[str] | None = None,
        port: int = 0,
        browser: bool = True,
        keep: int = 10**9,
    ) -> Any:
        """Open a page in the browser that shows inputs and answers where their predictions come from, while you click.

        The page is served by this process, on this machine alone. Questions are answered one at a time: first a coarse
        answer with its residual, then one to the tolerance. Answers are kept beside the run, up to a size.

        A recorded run is opened once more for the page, so it may be asked in Python at the same time. Checkpoints and a run
        that was trained again are asked themselves: do not ask them in Python while the page computes.

        Parameters
        ----------
        x : array or nested structure of arrays, optional
            Inputs, as for :meth:`attribute`. By default some of the training samples that the run stores.
        y : array, optional
            Their labels, to sort by loss and by wrong predictions.
        measurement : Measurement or callable, optional
            What to account for. By default the log-probability of the predicted class, or all outputs if the model is no
            classifier.
        tolerance : float
            As for :meth:`attribute`.
        vocabulary : sequence of str, optional
            The text of each token, by its number, for models that take tokens.
        port : int
            Port of the page; 0 takes a free one.
        browser : bool
            Whether to open the page in a browser.
        keep : int
            Most bytes of answers to keep on disk.

        Returns
        -------
        Server
            Its ``url`` is the address of the page: who knows it sees the samples. ``close()`` ends it.

        Raises
        ------
        ModuleNotFoundError
            If the extra is not installed: ``pip install "explaind_tf[explore]"``.
        RefusedError
            If there are no inputs and the run stores no samples, or the port is taken.
        ValueError
            If inputs are not valid for the run.
        """
        return explorer()(
            self,
            x,
            y,
            measurement,
            tolerance=tolerance,
            vocabulary=vocabulary,
            port=port,
            browser=browser,
            keep=keep,
        )

    def _task(self, inputs: Any, measurement: Measurement, options: Options) -> Task:
        flat = struct.as_batches(self.manifest.inputs, inputs, "inputs")
        _check_targets(measurement, len(flat[0]))
        return self._task_of(Block(flat, list(measurement.targets)), measurement, options)

    def _task_of(self, everything: Block, measurement: Measurement, options: Options) -> Task:
        """Return the task of a question about inputs that were checked, flat as the model's graphs take them."""
        question = ask(self, options)
        precisions = self._precisions(measurement, question.dtype)
        if not precisions.analysed.measurement.may_jump:
            question = question.without(names.JUMPS)
        return Task(
            run=self,
            precisions=precisions,
            replay=self._replay(precisions, question.tolerance),
            question=question,
            everything=everything,
        )


def chosen_measurement(measurement: Any) -> Measurement:
    """Return a measurement, by default that of all outputs."""
    return as_measurement(measurements.outputs() if measurement is None else measurement)


def _check_targets(measurement: Measurement, count: int) -> None:
    for target in measurement.targets:
        if len(target) != count:
            raise ValueError(
                f"The measurement {measurement.name!r} has labels for {len(target)} inputs; {count} inputs are attributed. "
                f"Give one label for each input."
            )
