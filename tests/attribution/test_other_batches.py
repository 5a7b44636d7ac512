"""A batch that did not train is found by its gradient, also where gradients are nothing but rounding."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import explaind_tf as xtf
from tests.helpers import X, Y, batches, dense_model, fit
from tests.nightly import sweep

pytestmark = pytest.mark.slow

Plant = Callable[[xtf.Run, pytest.MonkeyPatch], None]
STEP, PLACE = 1, 1


def changed_content(
    patch: pytest.MonkeyPatch, run: xtf.Run, which: int, change: Callable[[Any], Any]
) -> None:
    """Change what one sample of one batch holds: its inputs (0) or its targets (1)."""
    right, of_step = run.samples.take_flat, run.step_store.rows(STEP)

    def take_flat(rows: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
        found = right(rows)
        if np.array_equal(rows, of_step):
            arrays = [array.copy() for array in found[which]]
            arrays[0][PLACE] = change(arrays[0])
            found = tuple(arrays if part is found[which] else part for part in found)
        return found

    patch.setattr(run.samples, "take_flat", take_flat)


def another_sample(run: xtf.Run, patch: pytest.MonkeyPatch) -> None:
    """One sample of a batch is another one of it."""
    changed_content(patch, run, 0, lambda inputs: inputs[PLACE - 1])


def another_label(run: xtf.Run, patch: pytest.MonkeyPatch) -> None:
    """One sample has another target."""
    changed_content(patch, run, 1, lambda targets: targets[PLACE] + 0.1)


def another_weight(run: xtf.Run, patch: pytest.MonkeyPatch) -> None:
    """One sample has another weight."""
    right = run.step_store.transition

    def transition(number: int) -> Any:
        found = right(number)
        if number == STEP:
            found.weights[0] = found.weights[0] * np.where(np.arange(len(found.rows)) == PLACE, 1.02, 1.0)
        return found

    patch.setattr(run.step_store, "transition", transition)


@pytest.fixture(
    scope="module", params=sweep(("bias before BatchNorm", "no such bias"), core=("bias before BatchNorm",))
)
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> xtf.Run:
    has_bias = request.param == "bias before BatchNorm"
    model = dense_model(
        layers.Dense(8, use_bias=has_bias), layers.BatchNormalization(), layers.ReLU(), layers.Dense(2)
    )
    model.compile(xtf.PathAdamW(0.05), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(tmp_path_factory.mktemp("batches") / "run", verbose=False)
    fit(model, logger.tap(batches(X, Y, np.linspace(0.5, 1.5, len(X)))), logger, epochs=1)
    return xtf.open_run(logger.run_dir)


def verify(run: xtf.Run) -> None:
    run.verify(progress=False)


def ask_by_sample(run: xtf.Run) -> None:
    run.attribute(X[:2], axes=("sample",), progress=False).explaind.check()


def ask_by_group(run: xtf.Run) -> None:
    run.attribute(
        X[:2], axes=("group",), groups=[k % 2 for k in range(len(X))], progress=False
    ).explaind.check()


LOOKS = (verify, ask_by_sample, ask_by_group)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)
@pytest.mark.parametrize("plant", [another_sample, another_label, another_weight], ids=lambda p: p.__name__)
def test_what_did_not_train_is_found_with_step_and_variable(recorded, plant: Plant, look, monkeypatch):
    run = xtf.open_run(recorded.run_dir)
    plant(run, monkeypatch)
    with pytest.raises(
        xtf.UnbalancedLedgerError, match=rf"Step {STEP} .*another gradient.* for '.+' they differ by \S+, "
    ):
        look(run)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)
def test_what_trained_is_not_accused(recorded, look):
    look(xtf.open_run(recorded.run_dir))


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(20))
def test_no_seed_is_accused(seed, tmp_path):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 3)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(2),
        ]
    )
    model.compile(xtf.PathAdamW(0.01), loss="mse", jit_compile=bool(seed % 2))
    rng, logger = np.random.default_rng(seed), xtf.PathLogger(tmp_path / "run", verbose=False)
    x, y = rng.normal(size=(40, 6, 6, 3)).astype("float32"), rng.normal(size=(40, 2)).astype("float32")
    fit(model, logger.tap(batches(x, y, size=8)), logger, epochs=6)
    run = xtf.open_run(logger.run_dir)
    run.verify(progress=False)
    run.attribute(x[:2], axes=("sample",), progress=False).explaind.check()
