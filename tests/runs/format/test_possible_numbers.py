"""Numbers in a record that no training leaves there, with checksums that fit: refused by step and variable."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import explaind_tf as xtf
from explaind_tf.errors import RunFormatError
from explaind_tf.runs import RecordedRun
from tests.helpers import X, batches, dense_model, fit
from tests.runs.damage import STEPS, edit_manifest, read_records, rewrite

RECORD = 3  # of step 2


def change(run_dir: Path, edit: Callable[[Any], Any], record: int = RECORD) -> None:
    """Change the features of a record."""
    records = read_records(run_dir / STEPS)
    example = tf.train.Example.FromString(records[record])
    edit(example.features.feature)
    records[record] = example.SerializeToString()
    rewrite(run_dir, STEPS, records)


def put(name: str, place: int, value: float, dtype: str = "float32") -> Callable[[Any], Any]:
    """Return an edit that puts a number into the first array of a field."""

    def edit(features: Any) -> None:
        blobs = features[name].bytes_list.value
        array = np.frombuffer(blobs[0], dtype).copy()
        array[place] = value
        blobs[0] = array.tobytes()

    return edit


def integer(name: str, *values: int) -> Callable[[Any], Any]:
    def edit(features: Any) -> None:
        features[name].int64_list.value[:] = values

    return edit


def new_blob(name: str, array: np.ndarray) -> Callable[[Any], Any]:
    return lambda features: features[name].bytes_list.value.append(array.tobytes())


def theta(value: float) -> np.ndarray:
    found = np.ones(20, np.float32)
    found[19] = value
    return found


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (put("theta", 0, np.nan), "the weights of '.*dense.*/kernel' hold NaN"),
        (put("theta", 19, np.inf), "the weights of '.*/bias' hold infinite values"),
        (put("momentum", 0, -np.inf), "the momentum of '.*/kernel' hold infinite values"),
        (put("second_moment", 19, np.nan), "the second moment of '.*/bias' holds NaN"),
        (new_blob("theta_stepped", theta(np.nan)), "the weights after the update of '.*/bias' hold NaN"),
        (new_blob("theta_before", theta(np.inf)), "the weights before the step of '.*/bias' hold infinite"),
        (put("learning_rate", 0, np.nan, "float64"), "learning_rate=nan must be a finite number"),
        (put("learning_rate", 0, np.inf, "float64"), "learning_rate=inf must be a finite number"),
        (integer("iteration", -3), "iteration=-3 of an update"),
        (integer("is_skipped", 1), "updates the weights, and says that the optimizer left its batch out"),
        (
            integer("iteration", 2**63 - 1),
            "iteration=9223372036854775807 of an update must be a whole number",
        ),
        (integer("sample_count", -1), "it counts -1 samples"),
        (integer("rows", 0, -1), "names the samples -1 to 0"),
        (integer("rows", 0, 10), "names the samples 0 to 10, and there were 10"),
        (new_blob("clip_factors", np.array([1, 1, 1, 1.5])), "must be numbers from 0 to 1"),
        (new_blob("clip_factors", np.array([1, 1, 1, np.nan])), "must be numbers from 0 to 1"),
    ],
)
def test_numbers_that_no_training_leaves(copied: Path, edit: Callable[[Any], Any], message: str):
    change(copied, edit)
    with pytest.raises(RunFormatError, match=rf"{STEPS}: record {RECORD} is damaged: step 2: .*{message}"):
        RecordedRun(copied).step_store.transition(2)


@pytest.mark.parametrize("field", ["momentum", "second_moment"])
def test_moments_are_in_each_record_or_in_none(copied: Path, field: str):
    change(copied, lambda features: features.pop(field))
    with pytest.raises(RunFormatError, match=r"missing|step 2.*differ in whether there is a momentum"):
        RecordedRun(copied).step_store.transition(2)


@pytest.mark.slow
@pytest.mark.slow
def test_a_step_without_samples(copied: Path):
    change(copied, integer("rows"))
    run = xtf.open_run(copied)
    with pytest.raises(xtf.RunFormatError, match="step 2 names no samples"):
        run.attribute(X[:1], axes=("sample",), progress=False)


def test_infinite_second_moments_and_negative_rates_are_possible(copied: Path):
    """A squared gradient may overflow, and training may climb."""
    change(copied, put("second_moment", 0, np.inf))
    change(copied, put("learning_rate", 0, -0.01, "float64"))
    RecordedRun(copied).step_store.transition(2)


@pytest.mark.parametrize("value", [-1e300, 2**200, [0.1]])
def test_constants_of_a_law_that_nothing_can_compute_with(copied: Path, value: Any):
    edit_manifest(copied, lambda body: body["optimizer"]["constants"].update(weight_decay=value))
    with pytest.raises(RunFormatError, match=r"constants\.'weight_decay'=.*must be a number"):
        RecordedRun(copied)


@pytest.mark.slow
def test_an_end_that_differs_from_what_was_set(tmp_path: Path):
    model = dense_model()
    model.compile(xtf.PathSGD(0.1), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(tmp_path / "run", verbose=False)
    shift = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: model.trainable_variables[0].assign_add(np.ones((3, 2)))
    )
    fit(model, logger.tap(batches()), logger, shift)
    xtf.open_run(tmp_path / "run").measure(X)
    change(tmp_path / "run", put("theta", 0, 7.0), record=-1)
    with pytest.raises(
        RunFormatError, match=r"end 3: the weights or the state that something set are not those at the end"
    ):
        xtf.open_run(tmp_path / "run")
