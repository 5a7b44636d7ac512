"""Attribution in a process with only the run directory: it needs no model code, and its memory is bounded."""

import json
import os
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf

pytestmark = pytest.mark.slow

ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}


def _python(program, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


class Wavelet(keras.layers.Layer):
    """A layer that exists only in this test, with a plain broadcasting matmul."""

    def build(self, shape):
        self.mix = self.add_weight(shape=(shape[-1], 4), name="mix")

    def call(self, x):
        return tf.sin(tf.matmul(x, self.mix))


# tests/cli/test_cli_processes.py asks about a run with layers of its own in a new process every time.
@pytest.mark.nightly(daily=False)
def test_a_run_is_attributed_where_its_custom_layer_does_not_exist(tmp_path):
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 5, 3)).astype("float32"), rng.integers(0, 2, 20)
    layers = [
        keras.Input((5, 3)),
        Wavelet(name="wavelet"),
        keras.layers.Flatten(),
        keras.layers.Dense(2, name="logits"),
    ]
    model = keras.Sequential(layers, name="net")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(1e-2), loss=loss)
    logger, start = xtf.PathLogger(tmp_path / "run", retrain=True, verbose=False), model.get_weights()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.fit(logger.tap(dataset), epochs=2, callbacks=[logger], verbose=0, shuffle=False)
    np.save(tmp_path / "x.npy", x[:4])
    found = _python(
        """
        import json, sys, keras, numpy as np, explaind_tf as xtf
        run = xtf.open_run(sys.argv[1])
        ledger = run.attribute(np.load(sys.argv[2]), axes=("sample", "layer"))
        ledger.explaind.check()
        known = [name for name in keras.saving.get_custom_objects() if "Wavelet" in name]
        without = [w.tolist() for w in run.retrain({3: 0}).theta(1).values()]
        layers = ledger.layer.values.tolist()
        print(json.dumps({"final": ledger.final.values.tolist(), "layers": layers, "known": known, "without": without}))
        """,
        tmp_path / "run",
        tmp_path / "x.npy",
    )
    assert found["known"] == []
    assert found["layers"] == ["net/wavelet", "net/logits"]
    np.testing.assert_allclose(found["final"], model.predict(x[:4], verbose=0), atol=1e-6)
    model.set_weights(start)
    model.compile(xtf.PathAdamW(1e-2), loss=loss)
    weights = np.ones(20, "float32")
    weights[3] = 0
    model.fit(x, y, batch_size=8, epochs=2, sample_weight=weights, verbose=0, shuffle=False)
    for found_weight, weight in zip(found["without"], model.get_weights(), strict=True):
        np.testing.assert_array_equal(np.array(found_weight, "float32"), weight)


def _record(run_dir, *, samples, steps):
    """Record a run of 64 kB a sample and 2 MB a step."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(samples, 128, 128)).astype("float32")
    y = np.arange(samples) % 2
    model = keras.Sequential(
        [keras.Input((128, 128)), keras.layers.Flatten(), keras.layers.Dense(16), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(1e-4), loss=loss)
    logger = xtf.PathLogger(run_dir, verbose=False)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).repeat().batch(25)
    model.fit(logger.tap(dataset), steps_per_epoch=steps, callbacks=[logger], verbose=0, shuffle=False)
    return run_dir


@pytest.fixture(scope="module", name="peaks")
def _peaks(tmp_path_factory):
    base = tmp_path_factory.mktemp("memory")
    sizes = {"base": (500, 20), "samples": (2000, 80), "steps": (500, 80)}
    program = """
        import json, re, sys, numpy as np, explaind_tf as xtf
        run = xtf.open_run(sys.argv[1])
        x = np.random.default_rng(1).normal(size=(3, 128, 128)).astype("float32")
        run.attribute(x, xtf.measurements.log_prob([0, 1, 0]), axes=("sample",), tolerance=1e-2)
        # Not getrusage: its peak would be inherited from the process that started this one.
        print(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
        """
    return {
        name: _python(program, _record(base / name, samples=samples, steps=steps))
        for name, (samples, steps) in sizes.items()
    }


@pytest.mark.nightly(daily=False)
@pytest.mark.parametrize("grown", ["samples", "steps"])
def test_memory_of_a_sample_attribution_is_flat_in_samples_and_steps(peaks, grown):
    # Four times the samples are 98 MB more, four times the steps 250 MB more, in a process of some 800 MB. If either were
    # held, the peak would grow by more than a tenth.
    assert peaks[grown] <= 1.06 * peaks["base"], peaks
