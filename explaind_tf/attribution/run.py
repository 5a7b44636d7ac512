"""`Run`: a recorded run that answers questions."""

from collections.abc import Iterable, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.attribution.attributable import Attributable, chosen_measurement
from explaind_tf.attribution.counterfactual import (
    At,
    Differentiated,
    check_response,
    respond_to,
    responses,
)
from explaind_tf.attribution.curves import training_curves
from explaind_tf.attribution.failing_graphs import failing_graphs
from explaind_tf.attribution.planner import Plan, make_response_plan
from explaind_tf.attribution.retrained_run import RetrainedRun, Weights, retrain
from explaind_tf.attribution.verdicts import Smoothness, smoothness_of, validate
from explaind_tf.kernel.derivatives.derivatives import Precisions
from explaind_tf.levels import PATH, SAMPLE
from explaind_tf.old_objects import old_objects_aside
from explaind_tf.progress import Progress, progress_of
from explaind_tf.questions.options import Dtype, GroupLabels, Options, make_options
from explaind_tf.replay.checkpoint_replay import CheckpointReplay
from explaind_tf.replay.moment_check import MomentCheck
from explaind_tf.replay.path_replay import PathReplay
from explaind_tf.replay.replay import Replay
from explaind_tf.replay.state_check import StateCheck
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.retraining import Retrainer
from explaind_tf.runs.storage.files import AnyPath
from explaind_tf.sweeps.response_sweep import By
from explaind_tf.sweeps.task import Task

if TYPE_CHECKING:
    from explaind_tf.attribution.workers.on_workers import OnWorkers


def open_run(run_dir: str | AnyPath, *, trust_graph: bool = False) -> "Run":
    """Open a recorded run. Neither the model's code nor the dataset is needed.

    The run directory itself holds the model's functions and copies of the training samples, so protect it like the data.
    Its functions are graphs, which are programs. They are looked at before TensorFlow loads them, and refused if they hold
    an operation that may touch files, the network or the process.

    Parameters
    ----------
    run_dir : str, Path or UPath
        The directory that a ``PathLogger`` wrote, or its URL in any file system that fsspec knows.
    trust_graph : bool
        Whether to load graphs with operations that are not allowed, as earlier versions recorded them. They are run as any
        program is: set it only for a run of your own. Default: refuse them.

    Returns
    -------
    Run
        The run, which answers questions. Nothing is written to the directory.

    Raises
    ------
    RunFormatError
        If it is not a run, or one of its files is missing, cut or damaged. The first question raises it if a graph holds
        an operation that is not allowed.

    Warns
    -----
    UserWarning
        If the recording was cut short. The run is opened up to its last whole step whose samples are there. Also if weights
        became NaN or infinite in training: the run holds the steps before.
    """
    return Run(run_dir, trust_graph=trust_graph)


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

    def __init__(self, run_dir: str | AnyPath, *, trust_graph: bool = False) -> None:
        super().__init__(run_dir, trust_graph=trust_graph)  # warnings count the calls between it and the user

    def _replay(self, precisions: Precisions, tolerance: float) -> PathReplay:
        if self.level == PATH:
            return CheckpointReplay(self, precisions.analysed.model.dtype.as_numpy_dtype)
        return Replay(self, precisions, tolerance, self._checked_updates)

    def _workers(self, client: Any) -> "OnWorkers":
        from explaind_tf.attribution.workers.on_workers import OnWorkers

        return OnWorkers(client, partial(open_run, self.run_dir.absolute(), trust_graph=self._trust_graph))

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
        by: By = "weight",
        at: At = "recorded",
        repeats: int = 16,
        seed: int = 0,
        groups: GroupLabels | None = None,
        layers: Sequence[str] | None = None,
        steps: Iterable[int] | slice | None = None,
        batch_size: int | None = None,
        memory_limit: int | None = None,
        dtype: Dtype | None = None,
        out: str | AnyPath | None = None,
        client: Any = None,
        progress: bool | Progress = True,
    ) -> xr.Dataset:
        """Return how the final predictions would change with other weights of samples: the derivative at the weights 1.

        A sample k has the weight w_k in the loss of each of its batches, which :meth:`retrain` can change. The answer is the
        exact derivative of the final measurement,

            response_k = ∂f_N / ∂w_k     at w = 1,

        through the whole training: all later gradients, the optimizer's moments and what it divides by, clipping, weight
        decay, schedules, regularisers, and BatchNorm's statistics (docs/theory.md, "The other question"; the question is
        that of MAGIC, arXiv:2504.16430). To first order, **leaving the sample out changes the measurement by −response**.
        A positive response says that the sample raised the measurement.

        This is not what :meth:`attribute` answers. A ledger says what a sample did in the training that was, and balances.
        The response says how the end of training depends on the sample. It is a derivative, and responses do not add up to
        the movement. How far a first-order answer can be trusted depends on how smooth training is. Ask
        ``answer.explaind.validate()``, which trains again without some samples.

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            As for :meth:`attribute`.
        measurement : Measurement or callable, optional
            As for :meth:`attribute`.
        axes : iterable of str
            ``"sample"`` (with ``"token"``, for positions of sequences), or ``"group"``. ``"step"``: the step that used
            the sample. ``"layer"``: the layer through whose gradient the sample acted, which takes a backward pass of the
            batch for each layer. With another ``by``: ``"step"``, or none.
        by : {"weight", "learning_rate", "weight_decay"}
            By what to differentiate: the weights of samples, or the learning rate or weight decay of each step.
        at : {"recorded", "halves"}
            Where to differentiate: in the recorded training; or in trainings on random halves of the samples, of which the
            mean is taken. Where training is not smooth, the mean foretells better what leaving out many samples does. Each
            half takes two trainings and a sweep.
        repeats, seed : int
            Number of halves, and the seed by which they are drawn.
        groups : sequence or mapping, optional
            As for :meth:`attribute`. The response of a group is that by a common weight of all its samples.
        layers : sequence of str, optional
            As for :meth:`attribute`.
        steps : consecutive step numbers or slice, optional
            The steps whose batches are asked about. The measurement is always that at the end of training.
        batch_size, memory_limit : int, optional
            As for :meth:`attribute`. The sweep holds some eight rows of the size of the model for each measurement.
        dtype : {"float32", "float64"}, optional
            Precision of the analysis, as for :meth:`attribute`.
        out : str, Path or UPath, optional
            Zarr store to write the answer to, block by block of inputs, as for :meth:`attribute`.
        client : dask.distributed.Client, optional
            Whose workers compute the answer, each for some of the inputs, as for :meth:`attribute`. By default this process
            computes it.
        progress : bool or Progress
            As for :meth:`attribute`.

        Returns
        -------
        xarray.Dataset
            ``response``, dims (input, output) and the axes, in units of the measurement per unit of weight (per unit of
            learning rate, of weight decay); and ``final``, the measurement at the end of training, dims (input, output).

        Raises
        ------
        RefusedError
            If the run cannot tell samples apart. If a step of it is not differentiable: if its optimizer is another than
            Adam, AdamW, Adagrad, Nadam or SGD, or something else set weights.
        ValueError
            If inputs, axes, groups, layers or steps are not valid for the run.
        MemoryError
            If the answer would take more memory than is allowed.
        WorkersError
            If the workers of a client could not compute a part.
        """
        chosen = chosen_measurement(measurement)
        options = Options(
            axes=axes,
            groups=groups,
            layers=layers,
            steps=steps,
            batch_size=batch_size,
            memory_limit=memory_limit,
            dtype=dtype,
        )
        check_response(self, options, by, at, repeats)
        with failing_graphs(self), old_objects_aside():
            task = self._task(inputs, chosen, options)
        how, bars = Differentiated(by, at, repeats, seed), progress_of(progress)
        workers = None if client is None else self._workers(client)

        def answered(part: Task) -> xr.Dataset:
            if workers is not None:
                return workers.responses(part, chosen, how, bars)
            return responses(part, chosen, how, lambda: self._retrainer, bars)

        with failing_graphs(self), old_objects_aside():
            answer = answered(task) if out is None else respond_to(out, task, how, answered, chosen)
        if by == "weight":

            def measured(factors: np.ndarray) -> xr.DataArray:
                groups = task.question.groups
                weights = factors if groups is None else factors[groups.of_id]
                return self.retrain(weights, progress=progress).measure(inputs, chosen)

            answer.explaind.answered_by(partial(validate, measured))
        return answer

    def plan_counterfactual(
        self,
        inputs: Any,
        measurement: Any = None,
        axes: Iterable[str] = (names.SAMPLE,),
        *,
        by: By = "weight",
        **options: Any,
    ) -> Plan:
        """Estimate the time and memory that :meth:`counterfactual` would take with the same arguments.

        Three steps of the run are taken back, which takes about as long as they take in the answer. With ``at="halves"``
        the answer takes this time, and that of two trainings, for each half.

        Parameters
        ----------
        inputs : array or nested structure of arrays, shape (inputs, ...)
            As for :meth:`attribute`.
        measurement : Measurement or callable, optional
            As for :meth:`attribute`.
        axes, by, **options
            As for :meth:`counterfactual`: ``groups``, ``layers``, ``steps``, ``batch_size``, ``memory_limit``, ``dtype``.

        Returns
        -------
        Plan
            ``print`` it for a table.

        Raises
        ------
        RefusedError, ValueError, TypeError
            As :meth:`counterfactual` does.
        """
        asked = make_options("plan_counterfactual", axes=axes, **options)
        check_response(self, asked, by, "recorded", 1)
        with failing_graphs(self), old_objects_aside():
            return make_response_plan(self._task(inputs, chosen_measurement(measurement), asked), by)

    def smoothness(
        self, *, share: float = 0.05, directions: int = 3, seed: int = 0, progress: bool = True
    ) -> Smoothness:
        """Measure how smoothly the end of training depends on the weights of samples: the worth of first-order answers.

        Random samples are left out by half, and then whole. With Δ₁ and Δ₂ the moves of the final weights θ_i by the first
        and the second half,

            smoothness = Σ_i (|Δ₁ᵢ| + |Δ₂ᵢ|) · sign(Δ₁ᵢ) · sign(Δ₂ᵢ) / Σ_i (|Δ₁ᵢ| + |Δ₂ᵢ|),

        which is 1 if both move all weights alike, and 0 if the one says nothing of the other. It is close to the
        metasmoothness of Engstrom et al. (arXiv:2503.13751). :meth:`counterfactual` foretells well where it is near 1. What
        helps is a larger ``epsilon`` of Adam, a smaller learning rate, larger batches, and smooth activations
        (docs/how-to/counterfactual.md).

        Parameters
        ----------
        share : float
            Share of the samples that are left out.
        directions : int
            How many random choices. Each takes two trainings.
        seed : int
            Seed of the choices.
        progress : bool
            Whether to show progress bars (on a terminal only).

        Returns
        -------
        Smoothness
            Its ``value``, and that of each layer's weights: ``by_layer``. ``print`` it.

        Raises
        ------
        RefusedError
            As :meth:`retrain` does.
        """
        bars = Progress(progress)
        with failing_graphs(self):
            return smoothness_of(
                self, self._retrainer, share=share, directions=directions, seed=seed, progress=bars
            )

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
        with failing_graphs(self):
            return training_curves(self, Progress(progress))

    @cached_property
    def _retrainer(self) -> Retrainer:
        return Retrainer(self)

    def retrain(
        self, weights: Weights | None = None, *, every: int | None = None, progress: bool | Progress = True
    ) -> RetrainedRun:
        """Train again, with other weights of samples, from the record alone: the ground truth of a counterfactual.

        All else stays as it was: the batches and their order, random numbers, learning rates, also those that a callback set
        because of how training went. Neither the model's code nor the data are needed.

        With all weights 1 the result is the recorded training, bit for bit. With other weights w it is what Keras trains
        with ``fit(x, y, sample_weight=w)``, bit for bit; if the data had weights of their own, with these times w. So the
        loss of a sample counts w times, and the divisor of the mean over the batch stays the same. A weight of 0 leaves a
        sample out of all its batches. It still takes part in the statistics of a BatchNormalization, as it does in Keras.

        Both promises hold, although TensorFlow and XLA compile a training with weights otherwise than one without. For some
        models, the same steps with all weights 1 differ from the recorded ones in the last bits, as they do in Keras. The
        effect of another weight then includes this rounding.

        The first call with other weights also trains with weights of 1. If each step gives the recorded bits, this and later
        calls begin at the first step whose batch holds a sample with another weight (with keyframes, at the keyframe before
        it). If one does not, they begin at the first step of all, and the first call trains once more as it was, without
        weights. That must lead to the recorded weights. On another machine than that of the recording, rounding may differ:
        a warning says so. Later calls on this run rely on it.

        Parameters
        ----------
        weights : dict or array, optional
            The weight of each sample by its id, with 1 for ids left out, as in ``{7: 0}``. Or one weight for each sample,
            shape (samples,), in the order of ``run.samples.ids``. A weight holds in all steps that use the sample.
        every : int, optional
            Steps from one kept state to the next. Default: only the first and the last are kept, in memory.
        progress : bool or Progress
            As for :meth:`attribute`.

        Returns
        -------
        RetrainedRun
            A path at the level ``"path"``: ``measure(inputs)`` gives its final predictions, ``theta(step)`` its weights, and
            ``attribute`` its change by step, layer or weight.

        Raises
        ------
        ValueError
            If an id is unknown, the number of weights is wrong, or a weight is NaN or infinite.
        RefusedError
            If the run does not hold the training step, or not with weights of samples. If a loss divides by the sum of the
            weights (``reduction="mean_with_sample_weight"``). If something other than the optimizer set weights or state
            after the first changed step. If training diverges.
        RunFormatError
            If training as it was does not lead to the recorded weights, by more than rounding explains.

        Warns
        -----
        UserWarning
            If this machine does not give the recorded bits.

        Examples
        --------
        >>> without = run.retrain({7: 0})                                        # doctest: +SKIP
        >>> effect = run.measure(x_test[:3]) - without.measure(x_test[:3])       # doctest: +SKIP
        """
        bar = progress_of(progress)
        with failing_graphs(self):
            return retrain(self, self._retrainer, self._compiled, weights, every=every, progress=bar)

    def verify(self, *, replay: bool = True, progress: bool = True) -> None:
        """Check every recorded byte and, by replay, that each step follows from the record; return nothing if all is well.

        Parameters
        ----------
        replay : bool
            Whether to compute the gradient of each step's batch again and compare it with the one that the optimizer used,
            and the optimizer's law with the recorded weights. The state that the batch leaves (statistics of
            BatchNormalization, seeds) and the second moments of Adam, AdamW and Nadam are compared with the recorded ones,
            too. A run of the level ``"cause"`` has no losses, so only the law is checked. One of the level ``"path"`` has
            neither.
        progress : bool
            Whether to show a progress bar (on a terminal only).

        Raises
        ------
        RunFormatError
            If a file is damaged.
        UnbalancedLedgerError
            If an update used another gradient than its recorded batch gives, beyond rounding. Or if the law misses a step
            by more than 1 % of the largest step so far. Or if a step left another second moment than its gradient, beyond
            rounding; or another state than its batch, while other steps did not.
        """
        self.verify_files()
        if not replay or self.level == PATH:
            return
        with failing_graphs(self), Progress(progress).task("Verify", len(self.steps)) as advance:
            precisions = self._precisions(measurements.outputs())
            recorded = Replay(self, precisions, is_strict=True)
            states = StateCheck(self, recorded.gradients)
            moments = MomentCheck(self, recorded.law, recorded.updates, precisions.as_trained)
            for step in recorded.path_steps(0, len(self.steps), check_batches=self.level == SAMPLE):
                if self.level == SAMPLE:
                    states.look_at(recorded.step(step.number))
                    moments.check(recorded.step(step.number))
                advance()
            states.finish()
