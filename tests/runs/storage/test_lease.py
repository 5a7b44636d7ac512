"""A lease is free if its holder is known to have ended, or has not renewed it for long."""

import gc
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from upath import UPath

from explaind_tf.errors import OtherWriterError
from explaind_tf.runs.storage import lease as leases
from explaind_tf.runs.storage.files import remove_tree
from explaind_tf.runs.storage.holder import Holder
from explaind_tf.runs.storage.lease import Lease


@pytest.fixture
def path() -> Iterator[UPath]:
    url = UPath(f"memory://{uuid.uuid4().hex}/run/writer.json")
    yield url
    if url.parent.parent.exists():
        remove_tree(url.parent.parent)


def held_by(path: UPath, **changes: Any) -> None:
    """Write down that this process, but for some changes, holds a lease."""
    path.write_bytes(json.dumps(vars(Holder.here("other")) | changes).encode())


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_holds_it(path: UPath):
    first, second = Lease(path, "the run"), Lease(path, "the run")
    first.acquire()
    first.acquire()
    first.require()
    with pytest.raises(
        OtherWriterError, match=r"the run is being written to by process \d+ on .*It is this program"
    ):
        second.acquire()
    first.release()
    assert not path.exists()
    second.acquire()
    second.release()


@pytest.mark.parametrize(
    ("changes", "is_free"),
    [
        ({"host": "elsewhere"}, False),
        ({"namespace": "of another container"}, False),
        ({"host": "elsewhere", "renewed": 0.0}, True),
        ({"pid": ended_process}, True),
        ({"pid": ended_process, "host": "elsewhere"}, False),
        ({"started": 1.0}, True),  # the number of the process was given to this one
        ({}, True),  # a logger of this process that nothing refers to any more
    ],
)
def test_holder_that_has_ended_is_no_holder(path: UPath, changes: dict[str, Any], is_free: bool):
    held_by(path, **{name: value() if callable(value) else value for name, value in changes.items()})
    mine = Lease(path, "the run")
    if is_free:
        mine.acquire()
        mine.require()
        mine.release()
        return
    with pytest.raises(OtherWriterError, match="120 seconds after"):
        mine.acquire()
    assert Holder.decode(path.read_bytes()).token == "other"


def test_it_is_renewed_and_ends_with_its_object(path: UPath, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(leases, "RENEWAL_SECONDS", 0.01)
    mine = Lease(path, "the run")
    mine.acquire()
    first = Holder.decode(path.read_bytes())
    while (found := Holder.decode(path.read_bytes())).renewed == first.renewed:
        time.sleep(0.01)
    assert found.token == first.token
    mine.require()
    del mine
    gc.collect()
    while first.token in leases._held:  # a renewal that goes on holds the object, too
        time.sleep(0.01)
    other = Lease(path, "the run")
    other.acquire()  # nothing was released
    other.release()


def test_one_that_was_taken_is_lost(path: UPath):
    mine = Lease(path, "the run")
    mine.acquire()
    held_by(path, host="elsewhere")
    mine.renew()
    with pytest.raises(OtherWriterError, match="taken over"):
        mine.require()
    mine.release()
    assert Holder.decode(path.read_bytes()).host == "elsewhere"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"token": 3}'])
def test_file_that_names_nobody(path: UPath, text: str):
    path.write_text(text)
    with pytest.raises(OtherWriterError, match="should name the process"):
        Lease(path, "the run").acquire()
    assert path.read_text() == text
