"""Files of inputs: what they hold for models of one input, a dict or a sequence; what is refused; TFDS."""

import contextlib
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow_datasets as tfds
from typer.testing import Result

import explaind_tf as xtf
from explaind_tf.cli.inputs import check_source, leaf_names, read_inputs
from explaind_tf.runs.format.structure import Leaf, Structure
from tests.helpers import fit

pytestmark = pytest.mark.slow

A, B = np.arange(12.0).reshape(6, 2), np.arange(6)
LEAF_A, LEAF_B = Leaf("float32", (2,)), Leaf("int32", ())
ALL = slice(None)


def save(path: Path, **arrays: np.ndarray) -> str:
    np.savez(path, **arrays)
    return str(path)


@pytest.mark.parametrize(
    ("structure", "names"),
    [
        (LEAF_A, ["x"]),
        ({"b": LEAF_B, "a": LEAF_A}, ["a", "b"]),
        ((LEAF_A, LEAF_B), ["x0", "x1"]),
        ({"text": [LEAF_A, LEAF_B], "who": LEAF_B}, ["text/x0", "text/x1", "who"]),
    ],
)
def test_names_are_those_of_a_file(structure: Structure, names: list[str], tmp_path: Path):
    assert leaf_names(structure) == names
    arrays = {name: B + i for i, name in enumerate(names)}
    found = read_inputs(save(tmp_path / "f.npz", **arrays, y=B), structure, slice(1, 3))
    assert found.first_row == 1
    assert found.y.tolist() == [1, 2]
    flat = [np.asarray(array).tolist() for array in keras.tree.flatten(found.x)]
    assert flat == [[1 + i, 2 + i] for i in range(len(names))]


def test_an_array_alone(tmp_path: Path):
    np.save(tmp_path / "f.npy", A)
    found = read_inputs(str(tmp_path / "f.npy"), LEAF_A, slice(4, None))
    assert found.x.tolist() == A[4:].tolist()
    assert not isinstance(found.x, np.memmap)
    assert found.y is None


def test_an_input_called_y_is_no_label(tmp_path: Path):
    found = read_inputs(save(tmp_path / "f.npz", x=A, y=B), {"x": LEAF_A, "y": LEAF_B}, ALL)
    assert found.x["y"].tolist() == B.tolist()
    assert found.y is None


def test_what_is_missing_is_named_beside_what_there_is(tmp_path: Path):
    with pytest.raises(ValueError, match=r"lacks \['x'\]; it has \['images', 'y'\]"):
        read_inputs(save(tmp_path / "f.npz", images=A, y=B), LEAF_A, ALL)
    np.save(tmp_path / "f.npy", A)
    with pytest.raises(ValueError, match=r"lacks \['x0', 'x1'\]"):
        read_inputs(str(tmp_path / "f.npy"), [LEAF_A, LEAF_B], ALL)


@pytest.mark.parametrize("rows", [slice(0, 7), slice(6, None), slice(8, 9)])
def test_rows_that_are_not_there(tmp_path: Path, rows: slice):
    with pytest.raises(ValueError, match="x has 6 rows"):
        read_inputs(save(tmp_path / "f.npz", x=A), LEAF_A, rows)


class Trap:
    """Fails the test if it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("it was unpickled",))


@pytest.mark.parametrize("name", ["f.npz", "f.npy"])
def test_nothing_is_unpickled(tmp_path: Path, name: str):
    path = tmp_path / name
    objects = np.array([Trap()], dtype=object)
    np.savez(path, x=objects) if path.suffix == ".npz" else np.save(path, objects)
    with pytest.raises(ValueError, match=name):
        read_inputs(str(path), LEAF_A, ALL)
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match=name):
        read_inputs(str(path), LEAF_A, ALL)


def test_names_that_say_something_else(tmp_path: Path):
    np.savez(tmp_path / "several.npz", x=A)
    (tmp_path / "several.npz").rename(tmp_path / "f.npy")
    np.save(tmp_path / "one.npy", A)
    (tmp_path / "one.npy").rename(tmp_path / "f.npz")
    for name in ("f.npy", "f.npz"):
        with pytest.raises(ValueError, match="not what its name says"):
            read_inputs(str(tmp_path / name), LEAF_A, ALL)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed, np.save])
def test_damaged_files(tmp_path: Path, save: Callable[..., None]):
    """Change each byte, and cut the file before it: reading gives the array or one of the errors that a shell expects."""
    path = tmp_path / ("f.npy" if save is np.save else "f.npz")
    save(path, A.astype("float32")) if save is np.save else save(path, x=A)
    whole = path.read_bytes()
    for position in range(len(whole)):
        changed = bytearray(whole)
        changed[position] ^= 0x80
        path.write_bytes(changed)
        # Python warns of a wrong literal in the text of a header.
        with contextlib.suppress(ValueError, OSError, MemoryError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read_inputs(str(path), LEAF_A, ALL)
        path.write_bytes(whole[:position])
        with pytest.raises(ValueError, match=path.name):
            read_inputs(str(path), LEAF_A, ALL)


@pytest.mark.parametrize("source", ["test.csv", "tfds:mnist", "tfds:/test", "tfds:"])
def test_sources_of_other_kinds(source: str):
    with pytest.raises(ValueError, match=r"tfds:NAME/SPLIT"):
        check_source(source)


def test_no_file():
    with pytest.raises(FileNotFoundError, match=r"no file nope\.npz"):
        check_source("nope.npz")


class TestTfds:
    """On TFDS' mock: random images with random labels, the same each time."""

    @pytest.fixture(autouse=True)
    def _mocked(self):
        with tfds.testing.mock_data(num_examples=8):
            yield

    def test_from_training_to_a_ledger(self, call: Callable[..., Result], tmp_path: Path):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((28, 28, 1), dtype="uint8"),
                layers.Rescaling(1 / 255),
                layers.AveragePooling2D(14),
                layers.Flatten(),
                layers.Dense(10),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(xtf.PathAdamW(0.1), loss=loss, run_eagerly=True)
        logger = xtf.PathLogger(tmp_path / "run", verbose=False)
        dataset = tfds.load("mnist", split="train", as_supervised=True).batch(4)
        fit(model, logger.tap(dataset), logger)

        arguments = ("--rows", "1:4", "--measure", "log_prob", "--axes", "sample", "--json")
        result = call("attribute", tmp_path / "run", "--inputs", "tfds:mnist/test", *arguments)
        assert result.exit_code == 0, result.output
        found = [entry["final"] for entry in json.loads(result.stdout)["entries"]]
        images, labels = zip(
            *tfds.load("mnist", split="test", as_supervised=True).as_numpy_iterator(), strict=True
        )
        log_probs = keras.ops.log_softmax(model(np.stack(images[1:4]))).numpy()
        np.testing.assert_allclose(found, log_probs[np.arange(3), labels[1:4]], rtol=1e-4)

    def test_features_by_name(self):
        found = read_inputs("tfds:mnist/test", {"image": Leaf("uint8", (28, 28, 1))}, slice(2, 5))
        assert found.x["image"].shape == (3, 28, 28, 1)
        assert found.y.shape == (3,)

    def test_what_is_not_there(self):
        with pytest.raises(ValueError, match=r"has 8 rows; rows 5:9"):
            read_inputs("tfds:mnist/test", Leaf("uint8", (28, 28, 1)), slice(5, 9))
        with pytest.raises(ValueError, match=r"has 8 rows; rows 10:12"):
            read_inputs("tfds:mnist/test", Leaf("uint8", (28, 28, 1)), slice(10, 12))
        with pytest.raises(ValueError, match=r"lacks \['sound'\]"):
            read_inputs("tfds:mnist/test", {"sound": LEAF_A}, ALL)
