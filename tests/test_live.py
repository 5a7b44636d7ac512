"""`Explain` reports the ledger of the steps since its last report, and does not change training."""

from pathlib import Path

import keras
import numpy as np
import pytest
import rich.console

import explaind_tf as xtf
from explaind_tf import live
from explaind_tf.live import Explain
from tests.helpers import batches, fit, flat, initialised
from tests.report.test_tensorboard import read

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(10, 4, 4, 1)).astype("float32")
LABELS = RNG.integers(0, 2, 10)
LOG_PROB = xtf.measurements.log_prob(LABELS[:2])


def classifier() -> keras.Model:
    layers = [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(2)]
    model = initialised(keras.Sequential(layers))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(xtf.PathAdamW(0.05), loss=loss, run_eagerly=True)
    return model


def trained(run_dir: Path, epochs: int, *callbacks, every: int = 2, **options) -> tuple[keras.Model, Explain]:
    logger = xtf.PathLogger(run_dir, verbose=False)
    explain = Explain(logger, IMAGES[:2], LOG_PROB, every=every, **options)
    model = classifier()
    fit(model, logger.tap(batches(IMAGES, LABELS)), logger, explain, *callbacks, epochs=epochs)
    return model, explain


def test_it_accounts_for_the_steps_since_the_last_time(run_dir: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(rich.console.Console, "is_terminal", True)
    printed: list[str] = []
    monkeypatch.setattr(live.Console, "print", lambda self, line, **_: printed.append(line))
    history = keras.callbacks.History()
    model, _ = trained(run_dir, 4, history, tensorboard=tmp_path / "board")
    run = xtf.open_run(run_dir)
    assert [line.split(":")[0] for line in printed] == [
        "probe 0, steps 0–5",
        "probe 1, steps 0–5",
        "probe 0, steps 6–11",
        "probe 1, steps 6–11",
    ]
    second = run.attribute(
        IMAGES[:2], LOG_PROB, axes=("sample",), steps=slice(6, 12), tolerance=1e-2, progress=False
    )
    assert printed[2:] == live.lines(second, second.explaind.to_pandas(3))
    np.testing.assert_allclose(history.history["probe_1"][-1], second.final[1, 0], rtol=1e-6)

    events = read(tmp_path / "board")
    found = {event.step: event.value for event in events.Scalars("probe 1/data")}
    np.testing.assert_allclose(found[12], second.explaind.total("data")[1, 0], rtol=1e-6)
    assert [event.step for event in events.Images("probe 0/pictures")] == [6, 12]

    plain = classifier()
    fit(plain, batches(IMAGES, LABELS), epochs=4)
    np.testing.assert_array_equal(flat(model.trainable_variables), flat(plain.trainable_variables))


def test_it_is_quiet_where_nobody_watches(run_dir: Path, capsys: pytest.CaptureFixture[str]):
    trained(run_dir, 1, every=1)
    assert capsys.readouterr() == ("", "")


def test_one_number_for_each_input(run_dir: Path):
    logger = xtf.PathLogger(run_dir, verbose=False)
    explain = Explain(logger, IMAGES[:2])
    with pytest.raises(ValueError, match=r"this measurement has 2\. Pass a measurement with a single output"):
        fit(classifier(), logger.tap(batches(IMAGES, LABELS)), logger, explain)


@pytest.mark.parametrize("option", ["every", "k"])
def test_counts_are_positive(run_dir: Path, option: str):
    with pytest.raises(ValueError, match=f"{option} must be a positive integer, such as {option}=3; got 0"):
        Explain(xtf.PathLogger(run_dir, verbose=False), IMAGES[:1], **{option: 0})


def test_a_run_at_a_url_is_refused():
    with pytest.raises(xtf.RefusedError, match="when training has ended"):
        Explain(xtf.PathLogger("memory://explain/run"), np.zeros((1, 3), "float32"))
