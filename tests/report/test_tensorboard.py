"""TensorBoard reads what was written for it."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import explaind_tf as xtf
from explaind_tf import event_file as tensorboard
from explaind_tf.pictures import find_picture
from explaind_tf.report import Section
from explaind_tf.report.tensorboard import write_tensorboard
from tests.helpers import batches, dense_model, fit

pytestmark = pytest.mark.slow


class Events:
    """The events of a log directory."""

    def __init__(self, directory: Path) -> None:
        self._found = EventAccumulator(str(directory), {"tensors": 0})
        self._found.Reload()

    def tags(self) -> set[str]:
        return set(self._found.Tags()["tensors"])

    def Scalars(self, tag: str) -> list:
        return [Event(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in self._found.Tensors(tag)]

    def Images(self, tag: str) -> list:
        return [Event(e.step, tf.make_ndarray(e.tensor_proto)[2:]) for e in self._found.Tensors(tag)]

    def Text(self, tag: str) -> str:
        (event,) = self._found.Tensors(tag)
        return tf.make_ndarray(event.tensor_proto).item().decode()


class Event:
    def __init__(self, step, value):
        self.step, self.value = step, value


def read(directory: Path) -> Events:
    return Events(directory)


def test_a_recording_shows_each_step(run_dir: Path, tmp_path: Path):
    board = tmp_path / "board"
    logger = xtf.PathLogger(run_dir, tensorboard=board, verbose=False)
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
    fit(model, logger.tap(batches()), logger, epochs=2)
    events, run = read(board), xtf.open_run(run_dir)
    rates = events.Scalars("recording/learning_rate")
    assert [event.step for event in rates] == list(range(6))
    np.testing.assert_allclose([event.value for event in rates], 0.01, rtol=1e-6)
    (layer,) = run.layers
    for event in events.Scalars(f"displacement/{layer}"):
        moved = [run.theta(event.step + 1)[v.path] - run.theta(event.step)[v.path] for v in run.variables]
        np.testing.assert_allclose(
            event.value, np.sqrt(sum(np.square(part).sum() for part in moved)), rtol=1e-5
        )


def test_a_report_shows_its_numbers_and_samples(section: Section, tmp_path: Path):
    write_tensorboard(tmp_path, section)
    events = read(tmp_path)
    causes = [tag for tag in events.tags() if tag.startswith("by cause/")]
    total = sum(event.value for tag in causes for event in events.Scalars(tag))
    moved = float((section.path.final - section.path.initial).mean())
    np.testing.assert_allclose(total, moved, rtol=1e-5)  # written in float32
    layers = [tag for tag in events.tags() if tag.startswith("by layer/")]
    assert len(layers) == 2
    loss = [event.value for event in events.Scalars("training/loss")]
    np.testing.assert_allclose(loss, section.curves.loss, rtol=1e-6)
    assert "| proponent |" in events.Text("table/a picture")
    (image,) = events.Images("pictures/a picture")
    picture = tf.io.decode_png(image.value[0])
    # The input and each of ten samples, enlarged 24 times from 4 × 4, with gaps between them.
    assert picture.shape == (96, 11 * 96 + 10 * 2, 3)
    np.testing.assert_allclose(picture[:, :96], 128, atol=1)


def test_pictures_are_side_by_side():
    strip = tensorboard.strip([np.zeros((96, 2, 1)), np.ones((96, 1, 3)) / 2])
    assert strip.shape == (96, 5, 3)
    np.testing.assert_array_equal(strip[0, :, 0], [0, 0, 1, 1, 0.5])


def test_a_picture_is_found_and_scaled():
    table = np.zeros((3, 4))
    assert find_picture([table, np.zeros((5, 1, 1)), np.zeros((2, 2, 4))]) is None
    np.testing.assert_array_equal(
        find_picture([table, np.full((2, 2, 1), 51, np.uint8)]), np.full((2, 2, 1), 0.2, "f4")
    )
    np.testing.assert_array_equal(
        find_picture([np.array([[-1.0, 0], [0, 3]])[..., None]])[..., 0], [[0, 0.25], [0.25, 1]]
    )


def test_tensorboard_is_asked_for_at_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(tf.summary, "scalar")
    with pytest.raises(xtf.RefusedError, match="pip install tensorboard"):
        xtf.PathLogger(run_dir, tensorboard="board")
