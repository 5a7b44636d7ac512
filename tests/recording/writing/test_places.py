"""Files are on the disk before the manifest names them, since a power cut may destroy all that was not synced."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import explaind_tf as xtf
from explaind_tf.runs.format.manifest import read_manifest
from tests.helpers import batches, dense_model, fit


class Disk:
    """Notes how many bytes of each file were synced to the disk, by inode, which renaming does not change."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kept: Path) -> None:
        self.synced: dict[int, int] = {}
        self.commits = 0
        self._kept = kept
        self._fsync, self._replace = os.fsync, os.replace
        monkeypatch.setattr(os, "fsync", self.fsync)
        monkeypatch.setattr(os, "replace", self.replace)

    def fsync(self, descriptor: int) -> None:
        self._fsync(descriptor)
        found = os.fstat(descriptor)
        self.synced[found.st_ino] = found.st_size

    def replace(self, source: Any, target: Any) -> None:
        if Path(target).name == "manifest.json":
            assert self.is_synced(Path(source))
            shutil.copytree(Path(target).parent, self._kept / str(self.commits))
            self.check(Path(target).parent, Path(source))
            self.commits += 1
        self._replace(source, target)

    def is_synced(self, path: Path) -> bool:
        return self.synced.get(path.stat().st_ino) == path.stat().st_size

    def check(self, run_dir: Path, manifest: Path) -> None:
        """Check the files that a manifest names which is about to be committed."""
        copy = self._kept / str(self.commits)
        (copy / manifest.name).rename(copy / "manifest.json")
        found = read_manifest(copy)
        assert found.graphs
        for item in found.graphs:
            assert self.is_synced(run_dir / "graphs" / item.file), item.file
        assert run_dir.stat().st_ino in self.synced  # the names in it
        for shard in found.shards:
            if not shard.is_open:
                assert self.is_synced(run_dir / shard.file), shard.file
            elif shard.file == "steps-00000.tfrecord":
                assert self.is_synced(run_dir / f"{shard.file}.tmp")  # it holds the start record


def test_manifest_names_what_is_on_the_disk(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    disk = Disk(monkeypatch, tmp_path / "kept")
    model = dense_model()
    model.compile(xtf.PathAdamW(0.01), loss="mse", run_eagerly=True)
    logger = xtf.PathLogger(run_dir, verbose=False)
    for _ in range(2):
        fit(model, logger.tap(batches()), logger)
    assert disk.commits == 4
    # Each commit is a run, even the first one, which has no step yet.
    for commit, steps in enumerate([0, 3, 3]):
        with pytest.warns(UserWarning, match="cut short") if commit != 1 else contextlib.nullcontext():
            assert len(xtf.open_run(tmp_path / "kept" / str(commit)).steps) == steps
