"""Evaluates methods of data attribution, all by the same tests.

A method is a function of held-out inputs and their labels. It returns the influence of each training sample on log p(y|x),
shape (inputs, samples), with the samples in the order of ``run.samples.ids``. One test is detection: of mislabelled
samples, classes, shortcuts. The other is retraining without some of the samples: the linear datamodeling score (Ilyas et
al., arXiv:2202.00622). The ledger describes the training that took place. Its theorem does not say that it also predicts
another training; that is measured here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from scipy.stats import rankdata

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.analysis.gradients import Gradients
from explaind_tf.attribution import Run
from explaind_tf.correlations import Interval, bootstrap, rank_correlation

# (inputs, labels) -> (inputs, samples)
Influence = Callable[[Any, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Method:
    """A method of data attribution.

    Attributes
    ----------
    influence : callable
        Takes held-out inputs and their labels; returns the influence of each training sample, shape (inputs, samples).
    is_signed : bool
        Whether influence has a sign. Then samples with *low* values are suspect, since they lowered the probability of the
        right label. Without a sign, values are amounts, and samples with high values are suspect.
    """

    influence: Influence
    is_signed: bool

    def suspicion(self, x: Any, y: np.ndarray) -> np.ndarray:
        """Return how suspect each training sample is of a wrong label, judged by held-out inputs, shape (samples,)."""
        mean = self.influence(x, y).mean(axis=0)
        return -mean if self.is_signed else mean


def methods(
    run: Run, *, checkpoints: int = 10, tolerance: float = 1e-2, seed: int = 0
) -> Mapping[str, Method]:
    """Return all methods for a run, by name.

    Parameters
    ----------
    run : Run
        A run with one row in the sample store for each id, of a model whose samples do not interact and whose targets are
        class numbers.
    checkpoints : int
        Number of evenly spaced steps whose weights TracIn uses (Pruthi et al., arXiv:2002.08484).
    tolerance : float
        Tolerance of the ledgers.
    seed : int
        Seed of the method that is random.

    Raises
    ------
    ValueError
        If several samples share an id, or samples interact.
    """
    _refuse_shared_ids(run)
    samples, last = len(run.samples), len(run.steps)
    gradients = Gradients(run)
    own, targets = run.samples.take(np.arange(samples))
    labels = np.asarray(targets).reshape(samples)

    def ledger(x: Any, y: np.ndarray, axes: Sequence[str]) -> np.ndarray:
        found = run.attribute(x, measurements.log_prob(y), axes=axes, tolerance=tolerance, progress=False)
        found.explaind.check()
        data = found[names.DATA]
        assert isinstance(data, xr.DataArray)
        return data.squeeze(names.OUTPUT).values

    def tracin(x: Any, y: np.ndarray) -> np.ndarray:
        steps = np.unique(np.linspace(0, last - 1, checkpoints).round().astype(int))
        rates = [run.step_store.transition(int(step)).learning_rate for step in steps]
        return sum(
            (rate * _products(gradients, int(step), x, y) for rate, step in zip(rates, steps, strict=True)),
            start=np.zeros((len(y), samples)),
        )

    def of_itself(influence: Influence) -> Influence:
        # The same for every input, so computed once.
        amounts: list[np.ndarray] = []

        def repeated(x: Any, y: np.ndarray) -> np.ndarray:
            if not amounts:
                amounts.append(np.diagonal(influence(own, labels)))
            return np.tile(amounts[0], (len(y), 1))

        return repeated

    def data(x: Any, y: np.ndarray) -> np.ndarray:
        return ledger(x, y, (names.SAMPLE,))

    rng = np.random.default_rng(seed)
    return {
        "data influence": Method(data, is_signed=True),
        "absolute influence": Method(
            lambda x, y: np.abs(ledger(x, y, (names.SAMPLE, names.STEP))).sum(axis=-1), is_signed=False
        ),
        "self-influence": Method(of_itself(data), is_signed=False),
        "counterfactual": Method(partial(_responses, run), is_signed=True),
        "TracIn": Method(tracin, is_signed=True),
        "TracIn, self": Method(of_itself(tracin), is_signed=False),
        "gradient dot": Method(lambda x, y: _products(gradients, last, x, y), is_signed=True),
        "gradient cosine": Method(lambda x, y: _products(gradients, last, x, y, cosine=True), is_signed=True),
        "loss": Method(lambda x, y: np.tile(gradients.losses(last), (len(y), 1)), is_signed=False),
        "random": Method(lambda x, y: rng.normal(size=(len(y), samples)), is_signed=True),
    }


def _responses(run: Run, x: Any, y: np.ndarray) -> np.ndarray:
    found = run.counterfactual(x, measurements.log_prob(y), progress=False)
    return found[names.RESPONSE].squeeze(names.OUTPUT).values


def _refuse_shared_ids(run: Run) -> None:
    samples = len(run.samples)
    if not np.array_equal(run.samples.id_of_row, np.arange(samples)):
        raise ValueError(
            f"The {samples} distinct samples of this run share {len(run.samples.ids)} ids, so an id has no single loss. "
            f"Record a run with an id for each sample."
        )


def mislabelled(method: Method, x: Any, y: np.ndarray, is_wrong: np.ndarray, *, seed: int = 0) -> Interval:
    """Return the area under the ROC curve of suspicion as a detector of mislabelled training samples.

    Parameters
    ----------
    method : Method
        A method of the run.
    x, y : arrays
        Held-out inputs and their right labels.
    is_wrong : np.ndarray of bool
        Whether the label of a sample was wrong, shape (samples,).
    seed : int
        Seed of the bootstrap, over samples.
    """
    suspicion = method.suspicion(x, y)
    return bootstrap(
        lambda rows: float(auc(suspicion[None, rows], is_wrong[None, rows])[0]), (len(suspicion),), seed
    )


def retrieval(influence: np.ndarray, is_relevant: np.ndarray, *, seed: int = 0) -> Interval:
    """Return the mean over inputs of the area under the ROC curve of influence as a detector of relevant samples.

    Parameters
    ----------
    influence : np.ndarray
        Shape (inputs, samples).
    is_relevant : np.ndarray of bool
        Whether a sample is relevant to an input, such as one of its class, shape (inputs, samples).
    seed : int
        Seed of the bootstrap, over inputs.
    """
    areas = auc(influence, is_relevant)
    return bootstrap(lambda rows: float(areas[rows].mean()), (len(areas),), seed)


def datamodelling(
    influence: np.ndarray, subsets: np.ndarray, outcomes: np.ndarray, *, seed: int = 0
) -> Interval:
    """Return the linear datamodeling score: how well sums of influence rank the outcomes of retraining.

    For each input, it is Spearman's correlation, over subsets S, of Σ_{k∈S} influence_k with the measurement after training
    on S. The score is the mean over inputs. If each subset leaves out one group, it is the score of leave-group-out.

    Parameters
    ----------
    influence : np.ndarray
        Shape (inputs, samples).
    subsets : np.ndarray of bool
        Which samples a model was trained on, shape (subsets, samples).
    outcomes : np.ndarray
        The measurement after that training, shape (subsets, inputs).
    seed : int
        Seed of the bootstrap, over subsets and inputs.
    """
    foretold = influence @ subsets.T
    found = outcomes.T

    def score(rows: np.ndarray, chosen: np.ndarray) -> float:
        return float(rank_correlation(*(v[np.ix_(rows, chosen)] for v in (foretold, found))).mean())

    return bootstrap(score, foretold.shape, seed)


def auc(scores: np.ndarray, is_positive: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve of each row: how likely a positive sample scores higher; ties count half.

    Parameters
    ----------
    scores, is_positive : np.ndarray
        Shape (rows, samples). The area of a row without positive or negative samples is NaN.
    """
    positive = is_positive.sum(axis=1)
    ranks = np.where(is_positive, rankdata(scores, axis=1), 0).sum(axis=1)
    pairs = (positive * (is_positive.shape[1] - positive)).astype(np.float64)
    return (ranks - positive * (positive + 1) / 2) / np.where(pairs > 0, pairs, np.nan)


def _products(gradients: Gradients, step: int, x: Any, y: np.ndarray, *, cosine: bool = False) -> np.ndarray:
    """Return −⟨∇f, ∇ℓ_k⟩ before a step, shape (inputs, samples): to first order, what a step on ℓ_k adds to f."""
    rows = gradients.of_measurements(step, x, y)
    if cosine:
        rows = _normalised(rows)
    found = []
    for _, of_losses in gradients.of_losses(step):
        found.append(-rows @ (_normalised(of_losses) if cosine else of_losses).T)
    return np.concatenate(found, axis=1).astype(np.float64)


def _normalised(rows: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1)
