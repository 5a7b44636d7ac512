"""Trials of whether samples depend on their batch."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.kernel import contractions, trials
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, TrainingPoint
from tests.kernel.dense import SIZE, arguments, coupled_losses, jacobian_of, model, unpack


def test_coupled_samples_are_noticed_and_differentiated_within_their_batch(problem):
    path, _, batch, rng = problem
    alone, coupled = Derivatives(model()), Derivatives(model(coupled_losses))
    assert not trials.samples_are_coupled(alone.loss, path.start, [], batch)
    assert trials.samples_are_coupled(coupled.loss, path.start, [], batch)
    jacobian = jacobian_of(lambda z: coupled_losses(unpack(z), [], *arguments(batch)), path.start)[:, :SIZE]
    rows = tf.constant(rng.normal(size=(2, SIZE)))
    at = TrainingPoint(path.start, [], batch)
    for route in ("jvp", "shares"):
        found = contractions.ROUTES[route].contract(coupled.loss, at, rows, [[(0, SIZE)]])
        np.testing.assert_allclose(found[..., 0], rows.numpy() @ jacobian.T, atol=1e-12)
    gradients = coupled.loss.coupled_gradients(path.start, [], batch)
    np.testing.assert_allclose(gradients, jacobian, atol=1e-12)


def test_another_number_of_losses_than_samples_is_refused(problem):
    path, _, batch, _ = problem
    shorter = Derivatives(model(lambda *arguments: coupled_losses(*arguments)[:2])).loss
    with pytest.raises(RunFormatError, match=r"of shape \(2,\) for a batch of 6 samples"):
        trials.samples_are_coupled(shorter, path.start, [], batch)


def test_losses_far_from_their_targets_do_not_hide_that_samples_are_coupled(problem):
    path, _, batch, _ = problem
    far = Derivatives(model(lambda *arguments: coupled_losses(*arguments) + 1e12))
    assert trials.samples_are_coupled(far.loss, path.start, [], batch)


def test_samples_without_weight_do_not_hide_that_others_are_coupled(problem):
    path, _, batch, _ = problem
    weights = np.array([0.0, 1.0, 1.0, 0.0, 0.0, 0.0])
    batch = Batch(batch.inputs, batch.targets, [weights], batch.scales)
    assert trials.samples_are_coupled(Derivatives(model(coupled_losses)).loss, path.start, [], batch)
    assert not trials.samples_are_coupled(Derivatives(model()).loss, path.start, [], batch)
