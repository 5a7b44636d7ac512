"""Which weights a model can do without: scores of every weight, and the model with the lowest ones set to zero.

A weight's *parameter influence* is the size of its entry in the ledger, |Σ_s Φ_s Δθ_s| (ExPLAIND, arXiv:2505.20076): how
far the weight's own changes in training moved a prediction. The other scores are common in the field. Every score is a
function of a :class:`Subject`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf import measurements
from explaind_tf.analysis.comparison import divergence, same_class
from explaind_tf.analysis.gradients import Gradients
from explaind_tf.attribution import Run
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Block
from explaind_tf.ledgers.node_paths import node_path
from explaind_tf.replay.binding import constants_of, flat_point, pure_model
from explaind_tf.runs.format import structure as struct

Scope = Literal["model", "layer"]
SCOPES: tuple[Scope, ...] = ("model", "layer")


@dataclass(frozen=True)
class Subject:
    """What the scores of weights are computed from.

    Attributes
    ----------
    run : Run
        The model and its training.
    x, y : arrays
        Inputs for which the predictions should stay as they are, and their classes.
    tolerance : float
        Tolerance of the ledger.
    seed : int
        Seed of the score that is random.
    """

    run: Run
    x: Any
    y: np.ndarray
    tolerance: float = 1e-2
    seed: int = 0

    @cached_property
    def theta(self) -> np.ndarray:
        """The trained weights, shape (D,)."""
        return self.run.step_store.theta(len(self.run.steps))

    @cached_property
    def gradients(self) -> np.ndarray:
        """∇ log p(y|x) of each input at the trained weights, shape (inputs, D)."""
        return Gradients(self.run).of_measurements(len(self.run.steps), self.x, self.y)


def influence(subject: Subject) -> np.ndarray:
    """Return the mean over inputs of |Σ_s Φ_s Δθ_s|: what the changes of each weight did to log p(y|x), in nats."""
    tree = subject.run.attribute(
        subject.x,
        measurements.log_prob(subject.y),
        axes=(names.PARAMETER,),
        tolerance=subject.tolerance,
        progress=False,
    )
    tree.explaind.check()
    by_variable = []
    for variable in subject.run.variables:
        node = tree[node_path(variable.path)]
        total = sum(node[term] for term in tree.explaind.terms if term in node)
        assert isinstance(total, xr.DataArray)
        by_variable.append(abs(total.squeeze(names.OUTPUT)).mean(names.INPUT).values.ravel())
    return np.concatenate(by_variable)


def magnitude(subject: Subject) -> np.ndarray:
    """Return |θ|."""
    return np.abs(subject.theta)


def gradient_times_weight(subject: Subject) -> np.ndarray:
    """Return |θ ⊙ mean gradient|: to first order, the change of the mean loss without the weight."""
    return np.abs(subject.theta * subject.gradients.mean(axis=0))


def fisher(subject: Subject) -> np.ndarray:
    """Return θ² ⊙ mean squared gradient: twice the mean loss's change by the diagonal of the empirical Fisher matrix."""
    return subject.theta**2 * (subject.gradients**2).mean(axis=0)


def random(subject: Subject) -> np.ndarray:
    """Return random scores."""
    return np.random.default_rng(subject.seed).random(len(subject.theta))


SCORES: Mapping[str, Callable[[Subject], np.ndarray]] = {
    "influence": influence,
    "magnitude": magnitude,
    "gradient × weight": gradient_times_weight,
    "Fisher": fisher,
    "random": random,
}


def kept_weights(run: Run, scores: np.ndarray, fraction: float, scope: Scope) -> np.ndarray:
    """Return which weights are kept: those with the highest scores of the whole model, or of each layer.

    Parameters
    ----------
    run : Run
        A run of the model.
    scores : np.ndarray
        Shape (D,).
    fraction : float
        Share of the weights to keep, of the model or of each layer; their number is rounded up.
    scope : {"model", "layer"}
        Whether weights compete within the model or within each layer.

    Returns
    -------
    np.ndarray of bool
        Shape (D,).

    Raises
    ------
    ValueError
        If ``fraction`` is not in [0, 1], or there is not one score for each weight.
    """
    owners = np.concatenate([np.full(v.size, run.layers.index(v.layer)) for v in run.variables])
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction, the share of weights to keep, must be between 0 and 1; got {fraction}.")
    if scores.shape != owners.shape:
        raise ValueError(
            f"scores must hold a score for each of the {len(owners)} weights, shape ({len(owners)},); got shape "
            f"{scores.shape}."
        )
    competitors = [owners >= 0] if scope == "model" else [owners == layer for layer in np.unique(owners)]
    is_kept = np.zeros(len(owners), bool)
    for members in competitors:
        rows = np.flatnonzero(members)
        order = rows[np.argsort(-scores[rows], kind="stable")]
        is_kept[order[: int(np.ceil(fraction * len(rows)))]] = True
    return is_kept


def prune(
    run: Run, scores: Mapping[str, np.ndarray], fractions: Sequence[float], x: Any, y: np.ndarray
) -> xr.Dataset:
    """Set the weights with the lowest scores to zero, and compare the pruned model with the whole one.

    The pruned model is not trained again.

    Parameters
    ----------
    run : Run
        A run of the model.
    scores : mapping of str to np.ndarray
        Scores by name, shape (D,).
    fractions : sequence of float
        Shares of weights to keep.
    x, y : arrays
        Held-out inputs and their classes. The model returns logits or log-probabilities.

    Returns
    -------
    xarray.Dataset
        ``accuracy`` and ``agreement`` (shares), ``kl`` (nats, from the whole model to the pruned one), dims (score,
        scope, kept). The attribute ``accuracy`` is that of the whole model.
    """
    derivatives = Derivatives(pure_model(run, measurements.outputs()))
    block = Block(struct.as_batches(run.manifest.inputs, x, "x"), [])
    last = len(run.steps)
    theta, state = run.step_store.theta(last), run.step_store.state(last)

    def outputs(weights: np.ndarray) -> np.ndarray:
        return derivatives.measurement.values(
            flat_point(run, weights, state), constants_of(run, state), block
        ).numpy()

    whole = outputs(theta)
    shape = (len(scores), len(SCOPES), len(fractions))
    found = {name: np.zeros(shape) for name in ("accuracy", "agreement", "kl")}
    for at in np.ndindex(shape):
        is_kept = kept_weights(run, list(scores.values())[at[0]], fractions[at[2]], SCOPES[at[1]])
        pruned = outputs(np.where(is_kept, theta, np.zeros_like(theta)))
        found["accuracy"][at] = (pruned.argmax(axis=1) == y).mean()
        found["agreement"][at] = same_class(whole, pruned)
        found["kl"][at] = divergence(whole, pruned)
    return xr.Dataset(
        {name: (("score", "scope", "kept"), values) for name, values in found.items()},
        {"score": list(scores), "scope": list(SCOPES), "kept": list(fractions)},
        {"accuracy": float((whole.argmax(axis=1) == y).mean())},
    )
