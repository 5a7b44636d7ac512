"""Paths and URLs: how they are told apart, and how files are read at both."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from upath import UPath

from explaind_tf import RefusedError, RunFormatError
from explaind_tf.runs.storage import files
from explaind_tf.runs.storage.files import (
    as_path,
    free_bytes,
    open_file,
    remove_tree,
    require_whole_files,
    total_bytes,
)


@pytest.fixture
def url() -> Iterator[UPath]:
    """A directory in memory."""
    path = UPath(f"memory://{uuid.uuid4().hex}")
    path.mkdir()
    yield path
    remove_tree(path)


class TestPaths:
    @pytest.mark.parametrize("path", ["runs/a", Path("runs/a"), "/tmp/a", "a:b/c"])
    def test_local_paths_are_those_of_pathlib(self, path: str | Path):
        assert as_path(path) == Path(path)

    @pytest.mark.parametrize("url", ["file:///tmp/a b", "local:///tmp/a b", UPath("file:///tmp/a b")])
    def test_local_urls_are_local_paths(self, url: str | UPath):
        assert as_path(url) == Path("/tmp/a b")
        assert isinstance(as_path(url), Path)

    def test_other_urls_stay_what_they_are(self):
        path = as_path("memory://runs/a")
        assert not isinstance(path, Path)
        assert str(path / "manifest.json") == "memory://runs/a/manifest.json"

    @pytest.mark.parametrize("url", ["nosuch://runs/a", "gs://bucket/a"])
    def test_what_cannot_be_reached_is_refused(self, url: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "gcsfs", None)  # in case it is installed
        with pytest.raises(RefusedError, match=f"{url} cannot be reached: .*(nsupported|gcsfs)"):
            as_path(url)

    def test_url_that_lost_a_slash_is_not_taken_for_a_directory(self):
        with pytest.raises(ValueError, match="memory:/runs/a looks like a URL"):
            as_path(Path("memory://runs/a"))


class TestWholeFiles:
    def test_local_directories_and_object_stores_have_them(self, tmp_path: Path, url: UPath):
        require_whole_files(tmp_path)
        require_whole_files(url)

    def test_others_are_not_written_to(self, monkeypatch: pytest.MonkeyPatch, url: UPath):
        monkeypatch.setattr(files, "_OBJECT_STORES", ("gs",))
        with pytest.raises(
            RefusedError, match=r"cannot be written to.*local directory, and copy it to this URL"
        ):
            require_whole_files(url)


class TestReading:
    @pytest.mark.parametrize("kind", ["local", "memory"])
    def test_ranges(self, tmp_path: Path, url: UPath, kind: str):
        data = bytes(i % 251 for i in range(3 * 2**16))  # of several blocks
        path = (tmp_path if kind == "local" else url) / "file"
        path.write_bytes(data)
        file = open_file(path)
        assert file.size == len(data)
        for offset in (0, 5, 2**16 - 3, 2**16, 4, 2**17 + 1, len(data) - 2, len(data), len(data) + 9):
            for count in (0, 1, 12, 2**16, 2**17, 2**20):
                assert file.read(offset, count) == data[offset : offset + count]
        file.close()

    def test_file_that_is_missing(self, tmp_path: Path, url: UPath):
        for path in (tmp_path / "none", url / "none"):
            with pytest.raises(RunFormatError, match="none cannot be read"):
                open_file(path)

    def test_file_that_went_away(self, url: UPath):
        (url / "file").write_bytes(b"0123")
        file = open_file(url / "file")
        (url / "file").unlink()
        with pytest.raises(RunFormatError, match="file cannot be read"):
            file.read(0, 4)


def test_sizes(tmp_path: Path, url: UPath):
    for directory in (tmp_path, url):
        (directory / "a").mkdir()
        (directory / "a" / "b").write_bytes(b"123")
        (directory / "c").write_bytes(b"4567")
        assert total_bytes(directory) == 7
    assert free_bytes(url) is None
    assert (free_bytes(tmp_path / "not" / "yet") or 0) > 0


def test_removing(tmp_path: Path, url: UPath):
    for directory in (tmp_path, url):
        for name in ("file", "tree/file", "kept"):
            (directory / name).parent.mkdir(exist_ok=True)
            (directory / name).write_bytes(b"1")
        remove_tree(directory / "file")
        remove_tree(directory / "tree")
        assert [path.name for path in directory.iterdir()] == ["kept"]
