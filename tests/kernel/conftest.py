"""The problem on which derivatives, routes and trials are tested."""

import numpy as np
import pytest

from explaind_tf.kernel.functions import Batch, Block, StepPath
from tests.kernel.dense import SIZE, STATE


@pytest.fixture(name="problem")
def _problem():
    rng = np.random.default_rng(0)
    start = rng.normal(size=SIZE + STATE)
    displacement = 0.1 * rng.normal(size=SIZE + STATE)
    path = StepPath(start, start + displacement, displacement, [])
    samples = [rng.normal(size=(6, 4))], [rng.normal(size=(6, 3))], [rng.uniform(0.5, 2, 6)]
    batch = Batch(*samples, np.array([1 / 6]))
    return path, Block([rng.normal(size=(5, 4))], []), batch, rng
