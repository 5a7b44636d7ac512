"""Functions that damage a run on purpose."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from explaind_tf.runs.storage.records import RecordFile, RecordWriter
from explaind_tf.runs.storage.sealed import SEAL, seal

STEPS, SAMPLES = "steps-00000.tfrecord", "samples-00000.tfrecord"


def edit_manifest(run_dir: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Change the manifest and seal it again, as a faulty or hostile program would (a faulty disk would not)."""
    path = run_dir / "manifest.json"
    body = json.loads(path.read_text())
    body.pop(SEAL)
    edit(body)
    path.write_bytes(seal(body))


def shard_of(body: dict[str, Any], file: str) -> dict[str, Any]:
    return next(shard for shard in body["shards"] if shard["file"] == file)


def read_records(path: Path) -> list[bytes]:
    file = RecordFile(path, None)
    return [file.read(index) for index in range(len(file))]


def rewrite(run_dir: Path, file: str, records: list[bytes]) -> None:
    """Rewrite a shard, with a manifest that fits, as a faulty program would (a faulty disk would not)."""
    path = run_dir / file
    path.unlink()
    writer = RecordWriter(path)
    for data in records:
        writer.write(data)
    writer.close()
    edit_manifest(
        run_dir,
        lambda body: shard_of(body, file).update(count=writer.count, size=writer.size, sha256=writer.sha256),
    )


def cut_short(run_dir: Path) -> None:
    """Turn a complete run into a run whose training was killed."""

    def reopen(body: dict[str, Any]) -> None:
        body["status"] = "recording"
        for shard in body["shards"]:
            shard.update(count=None, size=None, sha256=None)

    edit_manifest(run_dir, reopen)
    for file in (STEPS, SAMPLES):
        (run_dir / file).rename(run_dir / f"{file}.tmp")


def record_ends(path: Path) -> list[int]:
    """Return the byte at which each record ends. A record has 16 bytes in addition to its data."""
    return np.cumsum([16 + len(data) for data in read_records(path)]).tolist()
