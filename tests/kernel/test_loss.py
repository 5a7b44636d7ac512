"""Derivatives of losses, compared with loops of GradientTape, in float64."""

import numpy as np
import pytest

from explaind_tf.kernel.derivatives.derivatives import Derivatives
from tests.kernel.dense import SIZE, arguments, jacobian_of, losses, model, unpack


@pytest.mark.parametrize("by_rule", [False, True])
def test_sample_gradients_sum_to_the_batch_gradient(problem, by_rule):
    path, _, batch, _ = problem
    derivatives = Derivatives(model())
    jacobian = jacobian_of(lambda z: losses(unpack(z), [], *arguments(batch)), path.start)
    expected = jacobian[:, :SIZE]
    found = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=by_rule)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(
        derivatives.loss.coupled_gradients(path.start, [], batch), expected, atol=1e-12
    )
    gradient = derivatives.loss.gradient(path.start, [], batch)
    np.testing.assert_allclose(gradient, expected.sum(axis=0), atol=1e-12)


def test_regularizer_gradient_leaves_the_state_out(problem):
    path, *_ = problem
    gradient = Derivatives(model()).loss.regularizer_gradient(path.start, [], [np.zeros((1, 4))]).numpy()
    np.testing.assert_allclose(gradient[:20], 2 * path.start[:20])
    assert gradient.shape == (SIZE,)
    assert not gradient[20:].any()
