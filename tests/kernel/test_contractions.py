"""Routes of contraction, compared with products with single gradients, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from explaind_tf.kernel import contractions
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import TrainingPoint
from tests.kernel.dense import SIZE, model


@pytest.mark.parametrize("partition", [[[(0, 35)]], [[(0, 20)], [(20, 30), (30, 35)]], [[(0, 35)], []]])
def test_all_routes_contract_alike_part_by_part(problem, partition):
    path, _, batch, rng = problem
    derivatives = Derivatives(model())
    rows = tf.constant(rng.normal(size=(3, SIZE)))
    gradients = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=False).numpy()
    expected = np.stack(
        [
            sum((rows.numpy()[:, a:b] @ gradients[:, a:b].T for a, b in part), np.zeros((3, 6)))
            for part in partition
        ],
        axis=-1,
    )
    at = TrainingPoint(path.start, [], batch)
    for route in ("rules", "loop", "calls", "jvp", "shares"):
        found = contractions.ROUTES[route].contract(derivatives.loss, at, rows, partition)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_gradients_come_in_chunks_of_bounded_size(problem):
    path, _, batch, _ = problem
    derivatives = Derivatives(model())
    whole = derivatives.loss.sample_gradients(path.start, [], batch, by_rule=False).numpy()
    at = TrainingPoint(path.start, [], batch)
    for route in ("rules", "calls", "shares"):
        chunks = list(contractions.ROUTES[route].gradient_chunks(derivatives.loss, at, 4 * SIZE * 8))
        assert [len(gradients) for _, gradients in chunks] == [3, 3]  # of about equal size
        np.testing.assert_allclose(np.concatenate([g for _, g in chunks]), whole, atol=1e-14)
