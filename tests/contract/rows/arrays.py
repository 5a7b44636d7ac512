"""Ten samples of each kind that the rows train on."""

import numpy as np

_RNG = np.random.default_rng(0)
X = _RNG.normal(size=(10, 3))
Y = _RNG.normal(size=(10, 2))
LABELS = _RNG.integers(0, 2, 10)
WEIGHTS = _RNG.uniform(0.2, 2.0, 10)
IMAGES = _RNG.normal(size=(10, 4, 4, 2))
SEQUENCES = _RNG.normal(size=(10, 4, 3))
TOKENS = _RNG.integers(1, 5, (10, 4)).astype("int32")
# A target and a weight for each token.
TOKEN_TARGETS = _RNG.normal(size=(10, 4, 2))
TOKEN_WEIGHTS = _RNG.uniform(0.2, 2, (10, 4))
