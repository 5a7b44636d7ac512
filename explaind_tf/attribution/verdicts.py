"""How far first-order counterfactual answers can be trusted, measured by training again without some samples."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.correlations import Interval, bootstrap, rank_correlation
from explaind_tf.progress import Progress
from explaind_tf.runs import RecordedRun
from explaind_tf.runs.format.step_records import Snapshot
from explaind_tf.runs.retraining import Retrainer

# From this rank correlation on, the order of responses is that of retraining but for neighbours.
_GOOD = 0.8


class Retrain(Protocol):
    """Gives a measurement after training with other weights of samples or groups."""

    def __call__(self, factors: np.ndarray) -> xr.DataArray:
        """Return the measurement, dims (input, output), for a weight for each sample, or each group, of an answer."""
        ...


@dataclass(frozen=True)
class Verdict:
    """How well responses foretell what training without some samples gives.

    Attributes
    ----------
    correlation : Interval
        Spearman's correlation over retrainings of the foretold with the found change, mean over measurements, with a
        bootstrap interval over retrainings and measurements. 1 is perfect, 0 chance.
    size : float
        Found over foretold change, by least squares over all retrainings and measurements: 1 if sizes are right.
    retrainings : int
        How often the training was repeated.
    left_out : int
        How many samples or groups each of them left out.
    kind : {"sample", "group"}
        Which of the two.
    foretold, found : np.ndarray
        The changes of the measurements, shape (retrainings, inputs, O).
    """

    correlation: Interval
    size: float
    retrainings: int
    left_out: int
    kind: str
    foretold: np.ndarray
    found: np.ndarray

    @property
    def advice(self) -> str:
        """What helps where responses foretell little; empty where they foretell well."""
        if self.correlation.value >= _GOOD:
            return ""
        return (
            "This training is not smooth enough for first-order answers. What helps is a larger epsilon of Adam (1e-3), a "
            "smaller learning rate, larger batches, and smooth activations such as gelu; run.smoothness() tells how much."
        )

    def __str__(self) -> str:
        """Return the verdict in a sentence, with advice where it is bad."""
        own = self.correlation
        told = (
            f"Rank correlation with {self.retrainings} trainings, each without {self.left_out} "
            f"{self.kind}{'' if self.left_out == 1 else 's'}: {own.value:.2f} ({own.low:.2f} to {own.high:.2f}); found over "
            f"foretold change: {self.size:.2f}."
        )
        return f"{told} {self.advice}".rstrip()


@dataclass(frozen=True)
class Smoothness:
    """How smoothly the end of a training depends on the weights of samples; see :meth:`explaind_tf.Run.smoothness`.

    Attributes
    ----------
    value : float
        That of all weights of the model: 1 is smooth, and 0 not at all.
    by_layer : dict of str to float
        That of each layer's weights. It shows the layers that are least smooth. One that nothing moves has 1.
    """

    value: float
    by_layer: dict[str, float]

    def __str__(self) -> str:
        """Return the smoothness in a sentence."""
        least = min(self.by_layer, key=lambda layer: self.by_layer[layer])
        return f"Smoothness {self.value:.2f}; least in {least}: {self.by_layer[least]:.2f}."


def validate(retrain: Retrain, answer: xr.Dataset, *, retrainings: int, share: float, seed: int) -> Verdict:
    """Leave random samples out, and compare the change of measurements with what their responses foretell.

    Parameters
    ----------
    retrain : callable
        Trains again.
    answer : xarray.Dataset
        With ``response`` by sample or group, and ``final``.
    retrainings : int
        How often.
    share : float
        Share of the samples or groups that each leaves out; at least one.
    seed : int
        Seed of the draws.

    Raises
    ------
    ValueError
        If the answer covers some of the steps only.
    """
    if answer.attrs["covers"] != "all steps":
        raise ValueError(
            f"This answer covers {answer.attrs['covers']} only, and retraining changes the weights of samples in all "
            f"steps. Ask without steps= to validate."
        )
    axis = names.GROUP if names.GROUP in answer.response.dims else names.SAMPLE
    kept = (names.INPUT, names.OUTPUT, axis)
    response = answer.response.sum([dim for dim in answer.response.dims if dim not in kept]).transpose(*kept)
    count = response.sizes[axis]
    left_out = max(1, round(share * count))
    rng = np.random.default_rng(seed)
    foretold, found = [], []
    for _ in range(retrainings):
        chosen = rng.choice(count, left_out, replace=False)
        without = retrain(np.where(np.isin(np.arange(count), chosen), 0.0, 1.0))
        foretold.append(-response.values[..., chosen].sum(axis=-1))
        found.append(without.values - answer[names.FINAL].values)
    return _verdict(np.array(foretold), np.array(found), left_out, axis, seed)


def _verdict(foretold: np.ndarray, found: np.ndarray, left_out: int, kind: str, seed: int) -> Verdict:
    rows = [array.reshape(len(array), -1).T for array in (foretold, found)]

    def score(measurements: np.ndarray, retrainings: np.ndarray) -> float:
        return float(rank_correlation(*(row[np.ix_(measurements, retrainings)] for row in rows)).mean())

    square = float((foretold**2).sum())
    size = float((foretold * found).sum()) / square if square else 0.0
    return Verdict(bootstrap(score, rows[0].shape, seed), size, len(found), left_out, kind, foretold, found)


def smoothness_of(
    run: RecordedRun, retrainer: Retrainer, *, share: float, directions: int, seed: int, progress: Progress
) -> Smoothness:
    """Return how alike the first and the second half of a change of weights move the weights of each layer, and of all.

    See :meth:`explaind_tf.Run.smoothness`.
    """
    samples = run.samples
    count = len(samples.ids)
    rng = np.random.default_rng(seed)
    agreed, moved = np.zeros((2, run.step_store.layout.size))
    for _ in range(directions):
        chosen = rng.choice(count, max(1, round(share * count)), replace=False)
        first, second = _moves(run, retrainer, np.isin(np.arange(count), chosen), progress)
        weight = np.abs(first) + np.abs(second)
        agreed += np.sign(first) * np.sign(second) * weight
        moved += weight
    owners = np.repeat([spec.layer for spec in run.variables], [spec.size for spec in run.variables])
    layers = list(dict.fromkeys(spec.layer for spec in run.variables))
    by_layer = {
        layer: _share(agreed[owners == layer].sum(), moved[owners == layer].sum()) for layer in layers
    }
    return Smoothness(_share(agreed.sum(), moved.sum()), by_layer)


def _share(agreed: float, moved: float) -> float:
    return float(agreed / moved) if moved else 1.0


def _moves(
    run: RecordedRun, retrainer: Retrainer, is_chosen: np.ndarray, progress: Progress
) -> Iterator[np.ndarray]:
    """Yield how the final weights move when chosen samples are left out by half, and then whole."""
    last = len(run.steps)
    theta = [run.step_store.theta(last)]
    for weight in (0.5, 0.0):
        weights = np.where(is_chosen, weight, 1.0)[run.samples.id_of_row]
        state: Snapshot = retrainer.states(weights, (last,), progress)[last]
        theta.append(state.theta)
    yield from np.diff(np.stack(theta).astype(np.float64), axis=0)
