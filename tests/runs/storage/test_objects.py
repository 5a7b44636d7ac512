"""Objects are made once, and replaced only while they are what the writer knows."""

from pathlib import Path

import pytest
from upath import UPath

from explaind_tf.runs.storage import objects as stored
from explaind_tf.runs.storage.objects import (
    ConflictError,
    create_object,
    read_object,
    remove_object,
    replace_object,
    upload_file,
)


def test_object_is_made_once(bucket: UPath, tmp_path: Path):
    path, source = bucket / "a", tmp_path / "source"
    create_object(path, b"mine")
    create_object(path, b"mine")  # as a request that is repeated since its answer was lost
    source.write_bytes(b"mine")
    upload_file(path, source)
    source.write_bytes(b"yours")
    for write in (lambda: create_object(path, b"yours"), lambda: upload_file(path, source)):
        with pytest.raises(ConflictError, match="another program"):
            write()
    assert path.read_bytes() == b"mine"


def test_only_the_known_version_is_replaced(bucket: UPath):
    path = bucket / "a"
    first = create_object(path, b"1")
    second = replace_object(path, b"2", first)
    for version in (first, "other"):
        with pytest.raises(ConflictError):
            replace_object(path, b"3", version)
    assert read_object(path) == (b"2", second)
    remove_object(path)
    with pytest.raises(ConflictError):
        replace_object(path, b"3", second)
    assert read_object(path) is None


@pytest.mark.parametrize("is_removed", [False, True])
def test_the_store_compares_when_it_replaces(
    bucket: UPath, is_removed: bool, monkeypatch: pytest.MonkeyPatch
):
    """Another program replaces the object after this one has looked, and before it writes."""
    path = bucket / "a"
    version = create_object(path, b"1")
    plain, answers = read_object, []

    def look(where: UPath) -> stored.Seen | None:
        seen = plain(where)
        if not answers:
            path.unlink() if is_removed else path.write_bytes(b"theirs")
        answers.append(seen)
        return seen

    monkeypatch.setattr(stored, "read_object", look)
    with pytest.raises(ConflictError):
        replace_object(path, b"mine", version)
    found = plain(path)
    assert (found and found.data) == (None if is_removed else b"theirs")
