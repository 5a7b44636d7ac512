"""Evaluation: numbers known beforehand, and methods against their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.metrics import roc_auc_score

import explaind_tf as xtf
from explaind_tf import measurements
from explaind_tf.analysis import evaluation
from explaind_tf.analysis.evaluation import Method
from explaind_tf.analysis.gradients import Gradients
from explaind_tf.correlations import rank_correlation
from tests.analysis.conftest import Classifier
from tests.helpers import LABELS, X, dense_model, fit

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(classifier: Classifier) -> dict[str, np.ndarray]:
    methods = evaluation.methods(classifier.run, checkpoints=2, tolerance=1e-3)
    return {name: method.influence(X[:3], LABELS[:3]) for name, method in methods.items()}


def test_influence_is_that_of_the_ledger(found, classifier):
    ledger = classifier.run.attribute(
        X[:3], measurements.log_prob(LABELS[:3]), axes=("sample",), tolerance=1e-3
    )
    np.testing.assert_allclose(found["data influence"], ledger.data[:, 0], rtol=1e-9, atol=1e-12)
    assert (found["absolute influence"] >= np.abs(found["data influence"]) - 1e-9).all()
    # Sample k is input k: samples are drawn in their order.
    np.testing.assert_allclose(
        found["self-influence"][0, :3], np.diagonal(found["data influence"][:, :3]), rtol=0.05
    )
    assert (found["self-influence"] == found["self-influence"][0]).all()


def test_products_of_gradients_are_those_of_the_definitions(found, classifier):
    run, gradients = classifier.run, Gradients(classifier.run)

    def at(step: int) -> tuple[np.ndarray, np.ndarray]:
        ((_, of_losses),) = gradients.of_losses(step)
        return gradients.of_measurements(step, X[:3], LABELS[:3]), of_losses

    rows, of_losses = at(len(run.steps))
    dot = -rows @ of_losses.T
    np.testing.assert_allclose(found["gradient dot"], dot, rtol=1e-4, atol=1e-6)
    lengths = np.outer(np.linalg.norm(rows, axis=1), np.linalg.norm(of_losses, axis=1))
    np.testing.assert_allclose(found["gradient cosine"], dot / lengths, rtol=1e-4, atol=1e-6)
    tracin = sum(-0.05 * rows @ of_losses.T for rows, of_losses in map(at, (0, len(run.steps) - 1)))
    np.testing.assert_allclose(found["TracIn"], tracin, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["TracIn, self"][0, :3], np.diagonal(tracin[:, :3]), rtol=1e-4)
    np.testing.assert_allclose(found["loss"], np.tile(gradients.losses(len(run.steps)), (3, 1)), rtol=1e-6)


def test_area_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, is_positive = rng.integers(0, 5, (4, 30)), rng.random((4, 30)) < 0.3  # with ties
    expected = [roc_auc_score(p, s) for p, s in zip(is_positive, scores, strict=True)]
    np.testing.assert_allclose(evaluation.auc(scores, is_positive), expected)
    assert np.isnan(evaluation.auc(scores[:1], np.zeros((1, 30), bool))).all()


@pytest.mark.parametrize(("is_signed", "values"), [(True, [3.0, 2, -1, -2]), (False, [0.0, 1, 2, 3])])
def test_what_is_suspect_depends_on_the_sign(is_signed, values):
    method = Method(lambda x, y: np.tile(values, (len(y), 1)), is_signed)
    is_wrong = np.array([False, False, True, True])
    area = evaluation.mislabelled(method, X[:2], LABELS[:2], is_wrong)
    assert (area.value, area.low, area.high) == (1, 1, 1)


def test_retrieval_is_the_mean_over_inputs():
    influence = np.array([[3.0, 2, 1, 0], [0, 1, 2, 3]])
    is_relevant = np.array([[True, True, False, False]] * 2)
    area = evaluation.retrieval(influence, is_relevant)
    assert (area.value, area.low, area.high) == (0.5, 0, 1)


def test_a_linear_world_is_foretold():
    rng = np.random.default_rng(0)
    influence, subsets = rng.normal(size=(6, 20)), rng.random((15, 20)) < 0.5
    outcomes = np.exp((influence @ subsets.T).T)  # ranks alone count
    score = evaluation.datamodelling(influence, subsets, outcomes)
    np.testing.assert_allclose([score.value, score.high], 1)
    assert evaluation.datamodelling(-influence, subsets, outcomes).value == pytest.approx(-1)
    noise = evaluation.datamodelling(rng.normal(size=(6, 20)), subsets, outcomes)
    assert noise.low < 0 < noise.high


def test_leaving_out_groups_is_the_same_score():
    influence = np.array([[5.0, 5, 1, 1, -3, -3]])
    subsets = np.repeat(~np.eye(3, dtype=bool), 2, axis=1)
    # Without the first group the measurement is lowest, without the last one highest.
    assert evaluation.datamodelling(
        influence, subsets, np.array([[-10.0], [-1], [2]])
    ).value == pytest.approx(1)


def test_a_constant_row_has_no_correlation():
    assert rank_correlation(np.ones((1, 4)), np.arange(4)[None]).tolist() == [0]


def test_samples_that_share_ids_are_refused(tmp_path):
    model = dense_model(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.05), loss=loss, run_eagerly=True)
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((np.arange(len(X)) // 2, (X, LABELS))).batch(5)
    fit(model, logger.tap(dataset), logger)
    with pytest.raises(ValueError, match="10 distinct samples of this run share 5 ids"):
        evaluation.methods(xtf.open_run(tmp_path / "run"))
