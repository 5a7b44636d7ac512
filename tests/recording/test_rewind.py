"""A training that a callback took back to an earlier step is recorded as if it had never gone on from there."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf.runs.format.step_records import REWIND, StepRecord
from explaind_tf.runs.steps import StepStore
from tests.helpers import CLASSES, FEATURES, LABELS, X, initialised
from tests.nightly import sweep

# Keras writes weights in a way that NumPy 2 deprecates.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
ARRAYS = {"x": X, "y": LABELS, "batch_size": 4, "epochs": 3, "shuffle": False, "verbose": 0}


class InterruptAfter(keras.callbacks.Callback):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def compiled() -> keras.Model:
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dropout(0.3, seed=3), keras.layers.Dense(CLASSES)]
    model = initialised(keras.Sequential([keras.Input((FEATURES,)), *layers]))
    model.compile(xtf.PathAdamW(0.02, weight_decay=0.1), LOSS)
    return model


def interrupted_and_resumed(run_dir: Path, order: str, backup_dir: Path, **options: Any) -> keras.Model:
    """Train three epochs of three steps. An interruption comes after the fifth step, the backup was after the third."""

    def callbacks(logger: xtf.PathLogger) -> list[keras.callbacks.Callback]:
        backup = keras.callbacks.BackupAndRestore(backup_dir, delete_checkpoint=False)
        return [backup, logger] if order == "backup first" else [logger, backup]

    logger = xtf.PathLogger(run_dir, verbose=False, **options)
    with pytest.raises(KeyboardInterrupt):
        compiled().fit(**ARRAYS, callbacks=[*callbacks(logger), InterruptAfter(5)])
    logger.close()
    model = compiled()
    model.fit(**ARRAYS, callbacks=callbacks(xtf.PathLogger(run_dir, verbose=False, resume=True, **options)))
    return model


CASES = {
    f"{order}, every={every}": (order, every)
    for order in ("backup first", "logger first")
    for every in (1, 2)
}


@pytest.mark.parametrize("name", sweep(CASES, core=("logger first, every=1",)))
def test_interrupted_and_resumed_is_uninterrupted(tmp_path: Path, name: str):
    order, every = CASES[name]
    resumed = interrupted_and_resumed(tmp_path / "run", order, tmp_path / "backup", every=every)
    plain = compiled()
    plain.fit(**ARRAYS, callbacks=[xtf.PathLogger(tmp_path / "plain", verbose=False)])
    for ours, theirs in zip(resumed.variables, plain.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    run, whole = xtf.open_run(tmp_path / "run"), xtf.open_run(tmp_path / "plain")
    assert len(run.steps) == len(whole.steps) == 9
    run.verify(progress=False)
    axes = ("sample", "step")
    ledgers = [opened.attribute(X[:2], axes=axes, progress=False) for opened in (run, whole)]
    for term in ledgers[0].explaind.terms:
        np.testing.assert_allclose(ledgers[0][term], ledgers[1][term], rtol=1e-5, atol=1e-7, err_msg=term)
    assert not ledgers[0].external.any()


@pytest.fixture(scope="module")
def rewound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that a backup took back, to be read only."""
    directory = tmp_path_factory.mktemp("rewound")
    interrupted_and_resumed(directory / "run", "backup first", directory / "backup")
    return directory / "run"


def test_what_was_recorded_after_the_backup_is_still_in_the_files(rewound: Path):
    run = xtf.open_run(rewound)
    counts = [len(file) for file in run.step_store.records.files]
    assert counts == [1 + 5, 1 + 6]  # the start and five steps; the rewind and six steps


def test_a_rewind_to_a_step_that_does_not_exist_is_damage(rewound: Path):
    store = xtf.open_run(rewound).step_store
    decode = store._decode

    class Changed(StepStore):
        def _decode(self, index: int) -> StepRecord:
            record = decode(index)
            return StepRecord(REWIND, 7, None, digest=record.digest) if record.kind == REWIND else record

    with pytest.raises(xtf.RunFormatError, match="goes back to step 7, but there are 5 steps before it"):
        Changed(store.records.files, store.layout)
