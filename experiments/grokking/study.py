"""Train the Transformer on an operation, record it, and analyse the run: phases, layers, causes, kernel."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import xarray as xr

import explaind_tf as xtf
from experiments.classifiers import balanced_ledger, compiled, layer_name
from experiments.grokking.group_operations import Task
from explaind_tf.analysis import (
    Invariance,
    Phases,
    balance,
    components,
    find_phases,
    influence,
    invariance,
    layer_cosines,
    layer_shares,
    mean_by_label,
)
from explaind_tf.datasets import operation
from explaind_tf.datasets.operations import Split
from explaind_tf.models import ModularTransformer

# All layers in the order of the forward pass, then the paper's outer layers. The other layers are its pipeline.
LAYERS = ("token_embedding", "position_embedding", "attention", "mlp_in", "mlp_out", "unembedding")
OUTER = ("token_embedding", "mlp_out", "unembedding")
INNER = tuple(layer for layer in LAYERS if layer not in OUTER)


@dataclass(frozen=True)
class Training:
    """How a model is trained, and measured during training.

    Attributes
    ----------
    num_train, num_test : int
        Training pairs, all of which are in each batch, and held-out pairs.
    steps, measure_every : int
        Training steps, and steps from one measurement (and keyframe) to the next.
    learning_rate, weight_decay : float
        Constants of AdamW; β₂ is 0.98.
    width : int
        Depth of the residual stream; the MLP is eight times as wide.
    embedding_scale : float
        Factor on the initial token embedding. The larger it is, the longer the model memorises before it generalises.
    """

    num_train: int = 4000
    num_test: int = 2000
    steps: int = 700
    measure_every: int = 10
    learning_rate: float = 1e-3
    weight_decay: float = 4.0
    width: int = 64
    embedding_scale: float = 2.0


@dataclass(frozen=True)
class Looking:
    """How the run is analysed.

    Attributes
    ----------
    inputs : int
        Held-out inputs of the ledger by layer and step.
    rows : int
        Held-out inputs of the ledger by sample and step, each with a different answer.
    window : int
        Steps that figures add up in one window.
    tolerance : float
        Tolerance of the ledgers.
    """

    inputs: int = 64
    rows: int = 24
    window: int = 20
    tolerance: float = 1e-2


@dataclass(frozen=True)
class Trained:
    """A recorded run, and what was measured during training.

    Attributes
    ----------
    curve : xr.Dataset
        ``accuracy`` and ``loss`` by ``split`` and number of steps ``step``.
    phases : Phases or None
        None if it did not generalise after it had memorised.
    """

    task: Task
    train: Split
    test: Split
    run: xtf.Run
    curve: xr.Dataset
    phases: Phases | None

    @property
    def windows(self) -> Mapping[str, range]:
        """The steps of each phase; all steps if there are no phases."""
        return self.phases.windows if self.phases else {"training": range(len(self.run.steps))}


@dataclass(frozen=True)
class Looked:
    """The analysis of a run.

    Attributes
    ----------
    shares, balance : xr.DataArray
        Influence by layer (as shares of the whole) and sums by term (nats), over windows of steps.
    cosines, cosines_over_steps : xr.DataArray
        Cosines between layers, by phase and by window of steps.
    kernel : xr.DataArray
        Mean entry of the training samples with an answer, ``window``, ``row``, ``answer``, in nats.
    answers : np.ndarray
        Answer of each row.
    """

    shares: xr.DataArray
    balance: xr.DataArray
    cosines: xr.DataArray
    cosines_over_steps: xr.DataArray
    kernel: xr.DataArray
    answers: np.ndarray

    def invariances(self, table: np.ndarray) -> list[Invariance]:
        """Return the invariance of each window's kernel under a group."""
        return [invariance(values, self.answers, table) for values in self.kernel.values]

    def of_phase(self, window: range, table: np.ndarray) -> Invariance:
        """Return the invariance of a phase's kernel, which is that of the windows that begin in the phase."""
        starts = self.kernel.step.values
        chosen = np.isin(starts, list(window))
        return invariance(self.kernel.values[chosen].sum(axis=0), self.answers, table)


def build(task: Task, training: Training, seed: int) -> keras.Model:
    """Return a new model."""
    keras.utils.set_random_seed(seed)
    model = ModularTransformer(len(task.table), d_model=training.width, d_mlp=8 * training.width)
    embeddings = model.get_layer("token_embedding").embeddings
    embeddings.assign(embeddings * training.embedding_scale)
    return model


def split(task: Task, training: Training, seed: int) -> tuple[Split, Split]:
    """Return training and held-out pairs."""
    return operation(task.table, num_train=training.num_train, num_test=training.num_test, seed=seed)


def evaluate(model: keras.Model, data: Split) -> tuple[float, float]:
    """Return accuracy and mean loss."""
    x, y = data
    log_probs = model(x, training=False).numpy()
    return float((log_probs.argmax(axis=1) == y).mean()), float(-log_probs[np.arange(len(y)), y].mean())


class _Curve(keras.callbacks.Callback):
    """Measures a model on both splits every few steps."""

    def __init__(self, splits: Mapping[str, Split], every: int) -> None:
        super().__init__()
        self._splits, self._every = splits, every
        self.steps: list[int] = []
        self.measured: list[list[tuple[float, float]]] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self._measure(0)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self._every == 0:
            self._measure(batch + 1)

    def _measure(self, step: int) -> None:
        self.steps.append(step)
        self.measured.append([evaluate(self.model, data) for data in self._splits.values()])

    def result(self) -> xr.Dataset:
        values = np.array(self.measured)
        return xr.Dataset(
            {name: (("step", "split"), values[..., i]) for i, name in enumerate(("accuracy", "loss"))},
            {"step": self.steps, "split": list(self._splits)},
        )


def train(task: Task, training: Training, run_dir: Path, seed: int) -> Trained:
    """Train a model on all pairs in each batch, and record it."""
    data, held_out = split(task, training, seed)
    model = compiled(
        build(task, training, seed),
        xtf.PathAdamW(training.learning_rate, weight_decay=training.weight_decay, beta_2=0.98),
    )
    logger = xtf.PathLogger(run_dir, every=training.measure_every, verbose=False)
    curve = _Curve({"training": data, "validation": held_out}, training.measure_every)
    model.fit(
        logger.tap(tf.data.Dataset.from_tensors(data).repeat()),
        steps_per_epoch=training.steps,
        callbacks=[logger, curve],
        verbose=0,
        shuffle=False,
    )
    found = curve.result()
    accuracies = (found.accuracy.sel(split=name).values for name in ("training", "validation"))
    phases = find_phases(found.step.values.tolist(), *accuracies)
    return Trained(task, data, held_out, xtf.open_run(run_dir), found, phases)


def look(trained: Trained, looking: Looking, seed: int) -> Looked:
    """Account for held-out log-probabilities of the right answers.

    Raises
    ------
    UnbalancedLedgerError
        If a ledger does not balance.
    """
    by_layer = _ledger(trained, np.arange(looking.inputs), ("layer", "step"), looking.tolerance)
    by_layer = by_layer.assign_coords(layer=[layer_name(path) for path in by_layer.layer.values])
    by_layer = by_layer.sel(layer=list(LAYERS))
    steps = len(trained.run.steps)
    starts = range(0, steps - steps % looking.window, looking.window)
    flow = influence(by_layer)
    rows = _rows(trained, looking.rows, seed)
    return Looked(
        shares=layer_shares(by_layer, looking.window),
        balance=balance(by_layer, looking.window),
        cosines=layer_cosines(flow, trained.windows),
        cosines_over_steps=layer_cosines(flow, {str(s): range(s, s + looking.window) for s in starts}),
        kernel=_kernel(trained, rows, looking),
        answers=trained.test[1][rows],
    )


def embedding_spectrum(trained: Trained, step: int) -> np.ndarray:
    """Return the share of each component of the group in the numbers' embedding, without the mean."""
    weights = trained.run.theta(step)
    (table,) = (value for path, value in weights.items() if "token_embedding" in path)
    numbers = table[: len(trained.task.group)].astype(np.float64)
    energies = np.array([np.sum(numbers * (part @ numbers)) for part in components(trained.task.group)[1:]])
    return energies / energies.sum()


def shuffled(group: np.ndarray, seed: int) -> np.ndarray:
    """Return the same group with its elements in a random order; a pattern found with it is chance."""
    order = np.random.default_rng(seed).permutation(len(group))
    place = np.argsort(order)
    return place[group[np.ix_(order, order)]]


def _rows(trained: Trained, count: int, seed: int) -> np.ndarray:
    """Return the first held-out input with each of the chosen answers, in the order of the answers."""
    answers, first = np.unique(trained.test[1], return_index=True)
    chosen = np.random.default_rng(seed).permutation(len(answers))[:count]
    return first[np.sort(chosen)]


def _ledger(trained: Trained, rows: np.ndarray, axes: tuple[str, ...], tolerance: float) -> xr.Dataset:
    x, y = trained.test
    measurement = xtf.measurements.log_prob(y[rows])
    return balanced_ledger(trained.run, x[rows], measurement, axes=axes, tolerance=tolerance)


def _kernel(trained: Trained, rows: np.ndarray, looking: Looking) -> xr.DataArray:
    ledger = _ledger(trained, rows, ("sample", "step"), looking.tolerance)
    # Samples without ids are numbered in the order of the batch, which is that of the data.
    entries = ledger.data.isel(output=0).coarsen(step=looking.window, boundary="trim", coord_func="min").sum()
    entries = entries.transpose("step", "input", "sample")
    labels = trained.train[1][entries["sample"].values]
    return xr.DataArray(
        mean_by_label(entries.values, labels, len(trained.task.group)),
        dims=("step", "row", "answer"),
        coords={"step": entries.step.values},
    )
