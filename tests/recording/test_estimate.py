"""The size of a recording is printed before it is written, and the estimate is right."""

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf import RefusedError
from explaind_tf.models import ResNet9
from explaind_tf.runs.estimate import Estimate, estimate_from
from tests.helpers import X, Y, batches, dense_model, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

EPOCHS = 4


def small_resnet() -> tuple[keras.Model, tf.data.Dataset]:
    x = np.random.default_rng(0).normal(size=(24, 12, 12, 3)).astype("float32")
    return ResNet9(10, input_shape=(12, 12, 3), width=0.1, batch_norm=True), batches(x, np.arange(24) % 10)


def token_model() -> tuple[keras.Model, tf.data.Dataset]:
    tokens = np.random.default_rng(0).integers(0, 50, (400, 12)).astype("int32")
    layers = [keras.layers.Embedding(50, 32), keras.layers.Dropout(0.1), keras.layers.Dense(50)]
    return keras.Sequential([keras.Input((12,), dtype="int32"), *layers]), batches(tokens, tokens, size=64)


def wide() -> tuple[keras.Model, tf.data.Dataset]:
    return dense_model(keras.layers.Dense(3000, "tanh"), keras.layers.Dense(2)), batches()


MODELS: dict[str, Any] = {"ResNet-9": small_resnet, "tokens": token_model, "wide": wide}


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def record(run_dir: Path, model: keras.Model, dataset: tf.data.Dataset, **options: Any) -> Estimate:
    """Record a run and return the estimate made at its first step."""
    loss = (
        "mse" if model.output_shape[-1] == 2 else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    model.compile(xtf.PathAdamW(1e-3), loss=loss)
    logger = xtf.PathLogger(run_dir, **{"retrain": True, "verbose": False} | options)
    fit(model, logger.tap(dataset), logger, epochs=EPOCHS)
    assert logger._session is not None
    assert logger._session.estimate is not None
    return logger._session.estimate


@pytest.mark.parametrize("every", [1, 5])
@pytest.mark.parametrize("name", sweep(MODELS))
def test_estimate_is_within_a_fifth_of_what_was_written(run_dir: Path, name: str, every: int):
    model, dataset = MODELS[name]()
    estimate = record(run_dir, model, dataset, every=every)
    assert estimate.total == pytest.approx(size_of(run_dir), rel=0.2)


@pytest.fixture(scope="module")
def short_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("short") / "run"
    record(run_dir, *wide(), every=2)
    return run_dir


@pytest.fixture(scope="module")
def every_step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Estimate]:
    """A run that holds every step, and its estimate."""
    run_dir = tmp_path_factory.mktemp("dense") / "run"
    return run_dir, record(run_dir, *wide(), every=1)


@pytest.fixture(scope="module")
def dense_dir(every_step: tuple[Path, Estimate]) -> Path:
    """The directory of the run that holds every step."""
    return every_step[0]


def assert_estimated(run_dir: Path, short_dir: Path, every: int) -> None:
    found = estimate_from(xtf.open_run(short_dir), steps=3 * EPOCHS)
    assert Estimate(**vars(found) | {"every": every}).total == pytest.approx(size_of(run_dir), rel=0.2)


def test_estimate_counts_the_training_step_where_it_is_stored(
    run_dir: Path, every_step: tuple[Path, Estimate]
):
    without = run_dir, record(run_dir, *wide(), retrain=False)
    for (directory, estimate), retrain in ((every_step, True), (without, False)):
        found = estimate_from(xtf.open_run(directory), steps=3 * EPOCHS)
        assert estimate.keeps_training == found.keeps_training == retrain
        assert found.total == pytest.approx(size_of(directory), rel=0.05)


def test_long_run_is_estimated_from_a_short_one(dense_dir: Path, short_dir: Path):
    assert_estimated(dense_dir, short_dir, every=1)


def test_long_run_with_keyframes_is_estimated_from_a_short_one(run_dir: Path, short_dir: Path):
    record(run_dir, *wide(), every=3)
    assert_estimated(run_dir, short_dir, every=3)


class TestBudget:
    DENSE = Estimate(keyframe=1000, between=10, samples=500, graphs=250, training=250, steps=100)

    def test_keyframes_are_as_close_as_the_budget_allows(self):
        for budget in (5_000, 20_000, 60_000, 102_000, 10**9):
            found = self.DENSE.fit_into(budget)
            assert found.total <= budget
            if found.every > 1:
                assert Estimate(**vars(found) | {"every": found.every - 1}).total > budget

    def test_budget_that_not_even_two_keyframes_fit_into_is_refused(self):
        with pytest.raises(RefusedError, match=r"100 steps take 4.0 kB with no keyframe.*the 1.0 kB that"):
            self.DENSE.fit_into(1000)

    def test_auto_fits_into_its_budget(self, run_dir: Path, dense_dir: Path):
        budget = size_of(dense_dir) // 2
        record(run_dir, *wide(), every="auto", disk_budget=budget)
        assert 1 < xtf.open_run(run_dir).manifest.every < 3 * EPOCHS
        assert size_of(run_dir) <= 1.1 * budget

    def test_auto_holds_every_step_where_there_is_room(self, run_dir: Path):
        record(run_dir, *wide(), every="auto")
        assert xtf.open_run(run_dir).manifest.every == 1

    def test_run_that_the_disk_cannot_hold_is_refused_before_it_begins(
        self, run_dir: Path, monkeypatch: pytest.MonkeyPatch
    ):
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6 - 10**5, 10**5))
        for every in (1, "auto"):
            with pytest.raises(RefusedError, match=r"12 steps .*take.*"):
                record(run_dir, *wide(), every=every)
        assert not run_dir.exists()


def test_logger_says_what_the_run_will_take(run_dir: Path, capsys: pytest.CaptureFixture[str]):
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss="mse")
    logger = xtf.PathLogger(run_dir, every=2)
    fit(model, logger.tap(batches(X, Y)), logger, epochs=2)
    said = capsys.readouterr().out
    for part in (
        "a step (all weights every 2 steps)",
        "for 6 steps",
        "of the free disk",
        "Recording adds",
        "a question",
    ):
        assert part in said
