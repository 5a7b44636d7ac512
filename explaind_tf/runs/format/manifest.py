"""The manifest: what a run directory holds, as frozen dataclasses and JSON.

The manifest is the commit point of a run. It is not trusted: unknown versions, missing fields and values of the
wrong type are refused with an error that names them.
"""

import datetime
import os
import re
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from explaind_tf import constants
from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.description import RunDescription
from explaind_tf.runs.format.divergence import DIVERGED, Divergence
from explaind_tf.runs.format.expect import expect, fields, is_count, is_sha256, short, text
from explaind_tf.runs.storage.digests import FileDigest, require_inside
from explaind_tf.runs.storage.files import AnyPath, is_file, refresh, sync_file
from explaind_tf.runs.storage.sealed import MOST_BYTES, SEAL, check_seal, parse, seal

RECORDING = "recording"
COMPLETE = "complete"

STEPS, SAMPLES = "steps", "samples"
SHARD_NAMES = {STEPS: constants.STEPS_SHARD, SAMPLES: constants.SAMPLES_SHARD}

# In the order in which they are written, after the version.
_KEYS = (
    *("run_id", "created", "status"),
    *("variables", "state", "optimizer", "optimizer_state", "every", "loss"),
    *("inputs", "targets", "weights", "outputs"),
    *("level", "level_reason"),
    *("environment", "graphs", "shards"),
)


@dataclass(frozen=True)
class Shard:
    """A file of records. ``count``, ``size`` and ``sha256`` are None while the file is being written."""

    file: str
    kind: str
    count: int | None = None
    size: int | None = None
    sha256: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether the file was still being written when the manifest was committed."""
        return self.count is None


@dataclass(frozen=True)
class Manifest(RunDescription):
    """Everything about a run except its steps and samples.

    Attributes
    ----------
    status : str
        ``"recording"`` until training ended and every shard was committed, then ``"complete"``.
    every : int
        Steps from one keyframe to the next; 1 if every step is a keyframe.
    environment : dict
        Versions, devices and mode of execution, for information; seconds per step, which estimates read; where the
        training diverged, if it did.
    graphs : tuple of FileDigest
        The files of the SavedModel.
    shards : tuple of Shard
        The files of records.
    """

    run_id: str
    created: str
    status: str
    every: int
    environment: dict[str, Any]
    graphs: tuple[FileDigest, ...]
    shards: tuple[Shard, ...]

    @classmethod
    def begin(
        cls,
        description: RunDescription,
        *,
        every: int,
        environment: dict[str, Any],
        graphs: tuple[FileDigest, ...],
    ) -> "Manifest":
        """Return the manifest of a run that begins now."""
        return cls(
            **vars(description),
            run_id=new_run_id(),
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            status=RECORDING,
            every=every,
            environment=environment,
            graphs=graphs,
            shards=(),
        )

    def with_shards(self, shards: tuple[Shard, ...], status: str) -> "Manifest":
        """Return a copy with other shards and status."""
        return replace(self, shards=shards, status=status)

    @property
    def divergence(self) -> Divergence | None:
        """Where the training stopped being finite, if it did."""
        return Divergence.in_environment(self.environment)

    def without_divergence(self) -> "Manifest":
        """Return a copy for a training that goes on from its last finite step."""
        kept = {key: value for key, value in self.environment.items() if key != DIVERGED}
        return replace(self, environment=kept)

    def shards_of(self, kind: str) -> tuple[Shard, ...]:
        """Return the shards of one kind (``"steps"`` or ``"samples"``) in order."""
        return tuple(shard for shard in self.shards if shard.kind == kind)


def new_run_id() -> str:
    """Return a fresh identifier of a run."""
    return uuid.uuid4().hex


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as it is written."""
    values = asdict(manifest)
    body = {"format_version": constants.FORMAT_VERSION} | {key: values[key] for key in _KEYS}
    body["inputs"] = struct.to_json(manifest.inputs)
    body["targets"] = struct.to_json(manifest.targets)
    body["weights"] = None if manifest.weights is None else struct.to_json(manifest.weights)
    body["outputs"] = struct.to_json(manifest.outputs)
    return seal(body)


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically: readers see the old or the new manifest, never a part of one."""
    path = run_dir / constants.MANIFEST_FILE
    temporary = path.with_name(path.name + constants.TEMPORARY_SUFFIX)
    with open(temporary, "wb") as file:
        file.write(encode_manifest(manifest))
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_file(run_dir)


def read_manifest(run_dir: AnyPath) -> Manifest:
    """Read and check the manifest of a run directory.

    Raises
    ------
    RunFormatError
        If the directory is not a run, or the manifest is damaged or of another format version.
    """
    refresh(run_dir)
    path = run_dir / constants.MANIFEST_FILE
    try:
        is_there = is_file(path)
    except OSError as error:
        raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    if not is_there:
        what = "is not a directory" if not run_dir.is_dir() else f"has no {constants.MANIFEST_FILE}"
        raise RunFormatError(
            f"{run_dir} is not a recorded run: it {what}. Training with callbacks=[PathLogger(run_dir)] makes a run. "
            f"Give the directory that the logger wrote."
        )
    require_inside(path, run_dir)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    return decode_manifest(path, data)


def decode_manifest(path: AnyPath, data: bytes) -> Manifest:
    """Return the manifest that a file holds.

    Raises
    ------
    RunFormatError
        If it is damaged or of another format version.
    """
    try:
        body = parse(data)
        _check_version(body)
        check_seal(data)
        return _manifest_from_json(body)
    except RunFormatError as error:
        raise RunFormatError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunFormatError(
            f"{path} is damaged: {type(error).__name__}: {error}. Restore it from a copy."
        ) from error


def _check_version(body: Any) -> None:
    expect(isinstance(body, dict), "the manifest must be a JSON object")
    version = body.get("format_version")
    expect(
        type(version) is int and version in constants.KNOWN_VERSIONS,
        f"format version {short(version)} was written by another version of explaind_tf; "
        f"this one reads {' and '.join(map(str, constants.KNOWN_VERSIONS))}. Record the run again, or read it with the "
        f"version of explaind_tf that wrote it",
    )


def _manifest_from_json(body: dict[str, Any]) -> Manifest:
    known = {*_KEYS, "format_version", SEAL}
    expect(set(body) <= known, f"unknown fields {short(sorted(set(body) - known))}")
    expect(body["status"] in (RECORDING, COMPLETE), f"unknown status {short(body['status'])}")
    description = RunDescription.from_json(body)
    expect(isinstance(body["environment"], dict), "environment must be an object")
    Divergence.in_environment(body["environment"])  # refuses an entry that is not valid
    for key in ("graphs", "shards"):
        expect(isinstance(body[key], list), f"{key} must be a list")
    run_id = text(body, "run_id")
    expect(
        re.fullmatch("[0-9a-f]{32}", run_id) is not None,
        f"run_id {short(run_id)} must be 32 hexadecimal digits",
    )
    expect(
        is_count(body["every"]) and body["every"] > 0,
        f"every={short(body['every'])} must be a whole number from 1",
    )
    graphs = tuple(_digest_from_json(item) for item in body["graphs"])
    expect(len({item.file for item in graphs}) == len(graphs), "it names a file of the graphs twice")
    return Manifest(
        **vars(description),
        run_id=run_id,
        created=text(body, "created"),
        status=body["status"],
        every=body["every"],
        environment=body["environment"],
        graphs=graphs,
        shards=_shards_from_json(body["shards"], is_complete=body["status"] == COMPLETE),
    )


def _shards_from_json(items: list[dict[str, Any]], *, is_complete: bool) -> tuple[Shard, ...]:
    shards = tuple(_shard_from_json(item) for item in items)
    expect(len({shard.file for shard in shards}) == len(shards), "it names a shard twice")
    for kind, name in SHARD_NAMES.items():
        files = [shard.file for shard in shards if shard.kind == kind]
        expect(
            files == [name.format(i) for i in range(len(files))],
            f"the {kind} files must be numbered from 0 in order; found {short(files)}",
        )
    if is_complete:
        is_sealed = all(None not in (shard.count, shard.size, shard.sha256) for shard in shards)
        expect(is_sealed, "a complete run must give count, size and sha256 of every shard")
    return shards


def _digest_from_json(item: dict[str, Any]) -> FileDigest:
    fields(item, ("file", "size", "sha256"), "an entry of graphs")
    name = text(item, "file")
    expect(
        is_count(item["size"]) and is_sha256(item["sha256"]),
        f"size or sha256 of {short(name)} is invalid: size must be a whole number, sha256 64 hexadecimal digits",
    )
    return FileDigest(name, item["size"], item["sha256"])


def _shard_from_json(item: dict[str, Any]) -> Shard:
    fields(item, ("file", "kind", "count", "size", "sha256"), "an entry of shards")
    name, kind = item["file"], item["kind"]
    # Names have a fixed form, so no name can point to another place or be taken for another kind.
    expect(
        isinstance(name, str) and re.fullmatch(r"[a-z]+-[0-9]{5,9}\.tfrecord", name) is not None,
        f"shard {short(name)} must be a file in the run directory itself",
    )
    expect(
        kind in (STEPS, SAMPLES) and name.startswith(f"{kind}-"),
        f"the name of shard {name!r} does not fit its kind {short(kind)}",
    )
    values = {key: item[key] for key in ("count", "size", "sha256")}
    for key in ("count", "size"):
        expect(
            values[key] is None or is_count(values[key]),
            f"shard {name!r}: {key}={short(values[key])} must be null or a whole number",
        )
    sha256 = values["sha256"]
    expect(
        sha256 is None or is_sha256(sha256),
        f"shard {name!r}: sha256={short(sha256)} must be null or 64 hexadecimal digits",
    )
    return Shard(name, kind, **values)
