"""A directory that is not empty is left unchanged, and only a fit that belongs to a run continues it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import explaind_tf as xtf
from explaind_tf import RefusedError
from tests.helpers import (
    Recorded,
    X,
    Y,
    batches,
    dense_model,
    digest,
    fit,
)
from tests.recording.fits import compiled


class TestUsedDirectory:
    @pytest.mark.parametrize("holds", ["a run", "any file", "a file in its place"])
    def test_is_refused_at_once_and_left_as_it_was(self, tmp_path: Path, small_run: Recorded, holds: str):
        directory = small_run.run_dir if holds == "a run" else tmp_path
        (tmp_path / "notes.txt").write_text("precious")
        before = digest(directory)
        where = tmp_path / "notes.txt" if holds == "a file in its place" else directory
        says = "already holds a run" if holds == "a run" else "is not empty"
        with pytest.raises(FileExistsError, match=f"{says}.*Nothing in it was changed.*another name"):
            xtf.PathLogger(where)
        assert digest(directory) == before

    def test_is_refused_if_it_was_filled_after_the_logger_was_made(self, tmp_path: Path):
        logger = xtf.PathLogger(tmp_path, verbose=False)
        (tmp_path / "notes.txt").write_text("precious")
        before = digest(tmp_path)
        with pytest.raises(FileExistsError, match=r"is not empty.*Nothing in it was changed"):
            fit(compiled(), logger.tap(batches()), logger)
        assert digest(tmp_path) == before

    def test_is_refused_if_it_was_filled_while_training_began(self, run_dir: Path):
        class Intruder(keras.callbacks.Callback):
            def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
                run_dir.mkdir()
                (run_dir / "manifest.json").write_text("{}")

        logger = xtf.PathLogger(run_dir, verbose=False)
        with pytest.raises(FileExistsError, match="already holds a run"):
            fit(compiled(), logger.tap(batches()), logger, Intruder())
        assert [path.name for path in run_dir.iterdir()] == ["manifest.json"]

    @pytest.mark.parametrize(
        ("change", "found"),
        [
            (lambda model: model.compile(xtf.PathAdamW(0.01), loss="mse"), "another model or optimizer"),
            (lambda model: model.compile(model.optimizer, loss="mae"), "compiled again"),
            (lambda model: fit(model, batches()), "stepped or set since"),
            (
                lambda model: model.optimizer.moments()[0][0].assign_add([[1.0, 1.0]] * 3),
                "stepped or set since",
            ),
        ],
        ids=["optimizer", "loss", "steps", "momentum"],
    )
    def test_fit_that_does_not_continue_the_run_leaves_it_as_it_was(
        self, run_dir: Path, change: Callable[[keras.Model], None], found: str
    ):
        model, logger = compiled(), xtf.PathLogger(run_dir, verbose=False)
        dataset = logger.tap(batches())
        fit(model, dataset, logger)
        before = digest(run_dir)
        change(model)
        with pytest.raises(RefusedError, match=rf"now given .*{found}.*new PathLogger and directory"):
            fit(model, dataset, logger)
        assert digest(run_dir) == before

    def test_run_is_not_continued_with_elements_of_another_form(self, run_dir: Path):
        model, logger = compiled(), xtf.PathLogger(run_dir, verbose=False)
        fit(model, logger.tap(batches()), logger)
        before = digest(run_dir)
        weighted = logger.tap(batches(X, Y, np.ones(10, "float32")))
        with pytest.raises(RefusedError, match="elements of another form"):
            fit(model, weighted, logger)
        assert digest(run_dir) == before

    def test_empty_directory_is_used(self, tmp_path: Path):
        logger = xtf.PathLogger(tmp_path, verbose=False)
        fit(compiled(), logger.tap(batches()), logger)
        assert len(xtf.open_run(tmp_path).steps) == 3

    def test_refused_training_can_be_repaired_with_the_same_logger(self, run_dir: Path):
        logger = xtf.PathLogger(run_dir, verbose=False)
        unreduced = dense_model()
        unreduced.compile(xtf.PathAdamW(0.01), loss=keras.losses.MeanSquaredError(reduction=None))
        with pytest.raises(RefusedError, match="reduction=None"):
            fit(unreduced, batches(), logger)
        fit(compiled(), logger.tap(batches()), logger)
        assert len(xtf.open_run(run_dir).steps) == 3
