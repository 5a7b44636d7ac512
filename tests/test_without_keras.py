"""The laws and the kernel need TensorFlow only. They are tried without Keras, and with oneDNN on."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import explaind_tf

pytestmark = pytest.mark.slow

# To import TensorFlow takes seconds, so one process does what all tests look at.
PROGRAM = '''
import json
import sys
import types
from importlib.machinery import ModuleSpec


class NoKeras:
    """Makes `import keras` fail, which TensorFlow accepts."""

    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name.split(".")[0] == "keras" else None

    def create_module(self, spec):
        raise ImportError(f"{spec.name} was imported")

    def exec_module(self, module):
        raise AssertionError("there is no such module")


sys.meta_path.insert(0, NoKeras())
package = types.ModuleType("explaind_tf")
package.__path__ = [sys.argv[1]]
sys.modules["explaind_tf"] = package

import numpy as np
import tensorflow as tf

import explaind_tf.laws
from explaind_tf.kernel.derivatives.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch, Block, PureModel, StepPath
from explaind_tf.kernel.quadrature.nodes import Quadrature

law = explaind_tf.laws.law_from_config("SGD", {"momentum_share": 0.5, "nesterov": 0.0, "weight_decay": 0.0})
end = explaind_tf.laws.Moments(None, None, None)
momentum = law.momentum(tf.constant([2.0]), tf.constant([1.0]), law.factors(end, end, 0.25, 0).gain)
step = float(momentum[0]) * float(law.factors(end, end, 0.25, 0).pull)
adam = explaind_tf.laws.AdamWLaw(0.9, 0.98, 1e-7, 0.5)
decay = float(adam.decay(tf.constant([4.0]), tf.constant([1.0]), 0.25)[0])


def measure(variables, constants, inputs, targets):
    (weight,) = variables
    keys = tf.matmul(inputs[0], weight)                       # rank 3 x rank 2
    scores = tf.nn.softmax(tf.matmul(keys, inputs[0], transpose_b=True))
    return tf.reduce_sum(tf.matmul(scores, keys), axis=1)


def losses(variables, constants, inputs, targets, weights, scales):
    return scales[0] * tf.reduce_sum(measure(variables, constants, inputs, targets) ** 2, axis=1)


def scales(variables, constants, inputs, targets, weights):
    return tf.ones(1)


spec = tf.TensorSpec((None, 8, 64))
model = PureModel(measure, losses, scales, None, (tf.TensorSpec((64, 64)),), (), (), (spec,), (), ())
derivatives = Derivatives(model)
rng = np.random.default_rng(0)
point = rng.normal(size=4096).astype("float32") / 8
x = rng.normal(size=(32, 8, 64)).astype("float32")
path = StepPath(point, point, point, [])
batch = Batch([x], [], [], np.ones(1, "float32"))
for _ in range(3):
    quadrature = Quadrature.same(4)
    for route in ("rules", "loop", "calls"):
        rows = derivatives.measurement.path_rows(path, quadrature, Block([x[:4]], []), route=route)
    for by_rule in (False, True):
        derivatives.loss.sample_gradients(point, [], batch, by_rule=by_rule)
    derivatives.loss.jvp(point, [], batch, np.stack([point] * 4))

keras = [name for name in sys.modules if name.split(".")[0] == "keras"]
print(json.dumps({"step": step, "decay": decay, "keras": keras, "finite": bool(np.isfinite(rows).all())}))
'''


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    package = Path(explaind_tf.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(package)],
        env={**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )
    # tf.vectorized_map aborts here (heap corruption in oneDNN's batch matmul).
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_a_step_without_keras(found: dict[str, Any]):
    assert (found["step"], found["decay"], found["keras"]) == (0.75, -0.5, [])


def test_broadcasting_matmuls_do_not_abort_the_process_with_onednn_on(found: dict[str, Any]):
    assert found["finite"]
