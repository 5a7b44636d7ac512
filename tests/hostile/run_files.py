"""The files of a run in memory, changed as somebody would who makes all digests and checksums anew."""

import copy
import hashlib
import json
import os
import struct
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c

from explaind_tf.runs.storage.sealed import SEAL, seal

MANIFEST = "manifest.json"
STEPS, SAMPLES = "steps-00000.tfrecord", "samples-00000.tfrecord"


@dataclass(frozen=True)
class Special:
    """What stands in the place of a file: a link to `target`, a pipe or a directory."""

    kind: str
    target: str = ""


def framed(records: list[bytes]) -> bytes:
    """Return records as a file of TFRecords, with checksums that fit."""
    return b"".join(frame(data) for data in records)


def frame(data: bytes, length: int | None = None) -> bytes:
    """Return one record. Another length than its own also gets a checksum that fits."""
    head = struct.pack("<Q", len(data) if length is None else length % 2**64)
    return head + struct.pack("<I", _masked(head)) + data + struct.pack("<I", _masked(data))


def unframed(data: bytes) -> list[bytes]:
    found, place = [], 0
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        found.append(data[place + 12 : place + 12 + length])
        place += 16 + length
    return found


def _masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True)
class RunFiles:
    """Files by their path in the run directory, and the manifest's JSON. `graphs/` is part of the paths."""

    files: dict[str, bytes | Special]
    body: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, run_dir: Path) -> "RunFiles":
        files: dict[str, bytes | Special] = {
            str(path.relative_to(run_dir)): path.read_bytes()
            for path in sorted(run_dir.rglob("*"))
            if path.is_file()
        }
        body = json.loads(bytes(files[MANIFEST]))  # type: ignore[arg-type]
        body.pop(SEAL)
        return cls(files, body)

    def bytes_of(self, name: str) -> bytes:
        found = self.files[name]
        assert isinstance(found, bytes)
        return found

    def records(self, name: str) -> list[bytes]:
        return unframed(self.bytes_of(name))

    def with_file(self, name: str, content: bytes | Special) -> "RunFiles":
        """Return the files with another one. Neither digest nor seal is made anew."""
        return replace(self, files=self.files | {name: content})

    def with_body(self, body: dict[str, Any]) -> "RunFiles":
        """Return the files with another manifest, sealed anew."""
        return replace(self, files=self.files | {MANIFEST: seal(body)}, body=body)

    def with_fitting(self, name: str, content: bytes, count: int | None = None) -> "RunFiles":
        """Return the files with another one, of which size and digest in the manifest are made anew."""
        body = copy.deepcopy(self.body)
        digests = {f"graphs/{item['file']}": item for item in body["graphs"]}
        item = digests.get(name) or next(shard for shard in body["shards"] if shard["file"] == name)
        item.update(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        if count is not None:
            item["count"] = count
        return self.with_file(name, content).with_body(body)

    def with_records(self, name: str, records: list[bytes]) -> "RunFiles":
        """Return the files with other records, of which all checksums and digests are made anew."""
        return self.with_fitting(name, framed(records), len(records))

    def write(self, run_dir: Path) -> None:
        for name, content in self.files.items():
            path = run_dir / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            elif content.kind == "link":
                path.symlink_to(content.target)
            elif content.kind == "pipe":
                os.mkfifo(path)
            else:
                path.mkdir()
