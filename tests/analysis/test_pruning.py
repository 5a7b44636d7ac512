"""Pruning: scores by hand, which weights are kept, and what is left of the model."""

import numpy as np
import pytest

from explaind_tf.analysis import divergence, pruning, same_class
from tests.analysis.conftest import Classifier
from tests.helpers import LABELS, X, flat, flat_theta

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def subject(classifier: Classifier) -> pruning.Subject:
    return pruning.Subject(classifier.run, X, LABELS, tolerance=1e-4)


def test_influence_is_what_each_weight_did(subject, classifier):
    scores = pruning.influence(subject)
    run, found = classifier.run, 0.0
    gradients = pruning.Gradients(run)
    for step in run.steps:
        # Trapezoids: one step moves no weight by more than the learning rate.
        ends = [gradients.of_measurements(int(at), X, LABELS) for at in (step, step + 1)]
        found = found + sum(ends) / 2 * (flat_theta(run, step + 1) - flat_theta(run, step))
    # The trapezoidal rule errs by h²/12 of the second derivative: about one percent at steps of 0.05.
    np.testing.assert_allclose(scores, np.abs(found).mean(axis=0), rtol=0.05, atol=2e-4)


def test_scores_by_definition(subject, classifier):
    theta, gradients = flat(classifier.model.trainable_variables), subject.gradients
    np.testing.assert_array_equal(pruning.magnitude(subject), np.abs(theta))
    np.testing.assert_allclose(
        pruning.gradient_times_weight(subject), np.abs(gradients.mean(axis=0) * theta), rtol=1e-6
    )
    np.testing.assert_allclose(pruning.fisher(subject), (gradients**2).mean(axis=0) * theta**2, rtol=1e-6)
    assert len(np.unique(pruning.random(subject))) == len(theta)


def test_the_highest_scores_are_kept(classifier):
    run = classifier.run
    scores = np.arange(sum(v.size for v in run.variables), dtype=float)
    of_model = pruning.kept_weights(run, scores, 0.25, "model")
    np.testing.assert_array_equal(
        np.flatnonzero(of_model), np.arange(len(scores))[-int(np.ceil(len(scores) / 4)) :]
    )
    of_layers = pruning.kept_weights(run, scores, 0.25, "layer")
    first = sum(v.size for v in run.variables if v.layer == run.layers[0])
    assert of_layers[:first].sum() == np.ceil(first / 4)
    assert of_layers[first:].sum() == np.ceil((len(scores) - first) / 4)
    assert pruning.kept_weights(run, scores, 1.0, "layer").all()


def test_the_pruned_model_is_that_of_keras(classifier):
    run, model = classifier.run, classifier.model
    scores = {name: pruning.SCORES[name](pruning.Subject(run, X, LABELS)) for name in ("magnitude", "random")}
    found = pruning.prune(run, scores, (1.0, 0.5), X, LABELS)
    at = found.sel(score="magnitude", kept=1.0)
    np.testing.assert_array_equal(at.agreement, 1)
    np.testing.assert_allclose(at.kl, 0, atol=1e-12)
    whole = model(X).numpy()
    kept = pruning.kept_weights(run, scores["magnitude"], 0.5, "model")
    before = model.get_weights()
    cuts = np.cumsum([array.size for array in before])[:-1]
    flattened = np.where(kept, np.concatenate([a.ravel() for a in before]), 0)
    model.set_weights([p.reshape(a.shape) for p, a in zip(np.split(flattened, cuts), before, strict=True)])
    pruned = model(X).numpy()
    model.set_weights(before)
    at = found.sel(score="magnitude", scope="model", kept=0.5)
    assert float(at.agreement) == same_class(whole, pruned)
    # float32 outputs of two graphs
    np.testing.assert_allclose(at.kl, divergence(whole, pruned), rtol=1e-4)
    assert float(at.accuracy) == (pruned.argmax(axis=1) == LABELS).mean()
    assert found.attrs["accuracy"] == (whole.argmax(axis=1) == LABELS).mean()


def test_wrong_arguments_are_refused(classifier):
    with pytest.raises(ValueError, match="between 0 and 1"):
        pruning.kept_weights(classifier.run, np.zeros(3), 1.5, "model")
    with pytest.raises(ValueError, match="a score for each"):
        pruning.kept_weights(classifier.run, np.zeros(3), 0.5, "model")
