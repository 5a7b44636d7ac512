"""Fixtures that several folders of tests use.

What imports TensorFlow is imported where it is needed: the process that starts the workers also loads this file, and needs
none of it.
"""

import os

# TensorFlow reads this when it is imported. Its log would hide the output of the tests.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.nightly import (  # noqa: F401 - hooks of pytest
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_terminal_summary,
)

if TYPE_CHECKING:
    from upath import UPath

    from tests.helpers import Recorded
    from tests.object_store import ObjectStore

# No deadline, as no test asserts a duration: machines of continuous integration are noisy.
hypothesis.settings.register_profile("explaind_tf", deadline=None)
hypothesis.settings.load_profile("explaind_tf")


@pytest.fixture(autouse=True, scope="session")
def _leave_out_training_steps(request: pytest.FixtureRequest) -> None:
    """Have recordings leave out the training step by day, unless a test asks for it: it takes half a second each time."""
    import explaind_tf as xtf

    if "nightly" not in request.config.option.markexpr:
        xtf.PathLogger.__init__.__kwdefaults__["retrain"] = False


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> "Recorded":
    """A complete run of six steps, with momentum, integer state and ids. Copy it before you change it."""
    import keras

    from tests.helpers import record

    return record(
        tmp_path_factory.mktemp("small") / "run",
        [keras.layers.Dense(3, activation="tanh"), keras.layers.Dropout(0.2, seed=1), keras.layers.Dense(2)],
        ids=[f"sample {i}" for i in range(10)],
    )


@pytest.fixture
def float64() -> Iterator[None]:
    """Keras in double precision for the time of a test."""
    from tests.helpers import double_precision

    with double_precision():
        yield


@pytest.fixture(scope="module")
def many_at_once() -> Iterator[None]:
    """Small tasks take the routes of larger ones, which compute many gradients at once."""
    from explaind_tf.sweeps import choose

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "few_calls", lambda _: 0)
        yield


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The path of a directory that a logger may create."""
    return tmp_path / "run"


@pytest.fixture(scope="session", name="_server")
def _object_store() -> "Iterator[ObjectStore]":
    from tests.object_store import ObjectStore  # moto takes a second to import

    server = ObjectStore()
    yield server
    server.close()


@pytest.fixture
def object_store(_server: "ObjectStore", monkeypatch: pytest.MonkeyPatch) -> "ObjectStore":
    """An object store on this machine, which `s3://` URLs lead to."""
    from tests.object_store import use

    use(monkeypatch, _server.endpoint)
    return _server


@pytest.fixture
def bucket(object_store: "ObjectStore") -> "Iterator[UPath]":
    """The URL of a new bucket."""
    from upath import UPath

    from tests.object_store import BUCKET

    path = UPath(f"s3://{BUCKET}-{uuid.uuid4().hex}")
    path.mkdir()
    yield path
    path.fs.rm(path.path, recursive=True)
