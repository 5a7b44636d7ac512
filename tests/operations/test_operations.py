"""Every public name of Keras has a row in docs/operations.md, and what this package adds to TensorFlow is exact.

``.ci/run`` measures all names, and compares with the page.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.helpers import double_precision
from tests.operations.exporting import export_functions
from tests.operations.names import public_names
from tests.operations.outcomes import measured_in
from tests.operations.synthesis import Found
from tests.operations.table import recorded

pytestmark = pytest.mark.slow

# A fixed core with what needs derivatives of our own: functions of a point, and its shape.
CORE = {
    "softsign": ((2, 3), keras.activations.softsign),
    "silu": ((2, 3), keras.activations.silu),
    "logsumexp": ((2, 3), keras.ops.logsumexp),
    "max_pool": ((1, 4, 4, 2), lambda x: keras.ops.max_pool(x, 2)),
    "bilinear": ((1, 3, 3, 2), lambda x: keras.ops.image.resize(x, (5, 4), interpolation="bilinear")),
    "bicubic": ((1, 3, 3, 2), lambda x: keras.ops.image.resize(x, (5, 4), interpolation="bicubic")),
    "lanczos3": ((1, 3, 3, 2), lambda x: keras.ops.image.resize(x, (5, 4), interpolation="lanczos3")),
    "antialias": ((1, 6, 6, 2), lambda x: keras.ops.image.resize(x, (3, 4), antialias=True)),
    "gelu": ((2, 3), keras.activations.gelu),
}


def test_every_public_name_has_a_row():
    assert recorded().keys() == public_names().keys()


# Other ways to resize, and what is written with what the first part has.
SECOND = {"silu", "bicubic", "lanczos3", "antialias"}


# `.ci/run` measures these names among all others, each time.
@pytest.mark.nightly(daily=False)
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(CORE.keys() - SECOND, id="first"),
        pytest.param(SECOND, id="second"),
    ],
)
def test_a_core_is_exact(tmp_path: Path, names: set[str]):
    rng = np.random.default_rng(0)

    def found(shape, function):
        spec = tf.TensorSpec((int(np.prod(shape)),), tf.float64)
        traced = tf.function(
            lambda z: tf.cast(tf.reshape(function(tf.reshape(z, shape)), (-1,)), tf.float64),
            input_signature=[spec],
            autograph=False,
        )
        return Found(traced.get_concrete_function(), rng.uniform(-1, 1, spec.shape))

    with double_precision():
        functions = {name: found(*CORE[name]) for name in sorted(names)}
    export_functions(tmp_path, functions)
    outcomes = {name: outcome.outcome for name, outcome in measured_in(tmp_path).items()}
    assert outcomes == dict.fromkeys(names, "exact")
