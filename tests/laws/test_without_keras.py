"""The laws need TensorFlow only: a step can be computed without Keras."""

import subprocess
import sys
from pathlib import Path

import pytest

import explaind_tf

pytestmark = pytest.mark.slow

PROGRAM = '''
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

import tensorflow as tf

import explaind_tf.laws

law = explaind_tf.laws.law_from_config("SGD", {"momentum_share": 0.5, "nesterov": 0.0, "weight_decay": 0.0})
end = explaind_tf.laws.Moments(None, None, None)
momentum = law.momentum(tf.constant([2.0]), tf.constant([1.0]), law.factors(end, end, 0.25, 0).gain)
print(float(momentum[0]) * float(law.factors(end, end, 0.25, 0).pull))

adam = explaind_tf.laws.AdamWLaw(0.9, 0.98, 1e-7, 0.5)
print(float(adam.decay(tf.constant([4.0]), tf.constant([1.0]), 0.25)[0]))
print([name for name in sys.modules if name.split(".")[0] == "keras"])
'''


def test_a_step_without_keras():
    package = Path(explaind_tf.__file__).parent
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(package)], capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.split("\n") == ["0.75", "-0.5", "[]", ""]
