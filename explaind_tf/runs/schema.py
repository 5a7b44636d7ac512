"""The manifest: what a run directory holds, as frozen dataclasses and JSON.

The manifest is the commit point of a run. It is read with as little trust as any file: unknown versions,
missing fields and values of the wrong type are refused by name.
"""

import json
import math
import os
import uuid
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from explaind_tf import constants
from explaind_tf.errors import RunFormatError
from explaind_tf.runs import structure as struct
from explaind_tf.runs.structure import Structure

RECORDING = "recording"
COMPLETE = "complete"


@dataclass(frozen=True)
class VariableSpec:
    """A variable of the model: Keras path, shape, dtype, and whether weight decay applies to it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    decay: bool

    @property
    def size(self) -> int:
        """Number of scalars in the variable."""
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        """Whether the variable moves on a continuous path (seeds and counters do not)."""
        return "float" in self.dtype

    @property
    def layer(self) -> str:
        """Path of the layer that owns the variable."""
        return self.path.rsplit("/", 1)[0]


@dataclass(frozen=True)
class Shard:
    """A file of records. ``count``, ``size`` and ``sha256`` are None while it is being written."""

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
class Manifest:
    """Everything about a run except its steps and samples.

    Attributes
    ----------
    status : str
        ``"recording"`` until training ended and every shard was committed, then ``"complete"``.
    variables : tuple of VariableSpec
        Trainable variables, in the order in which they are concatenated to θ.
    state : tuple of VariableSpec
        Non-trainable variables.
    optimizer : dict
        Name of the displacement law and its constants.
    loss : dict
        Names and reductions of the compiled losses, and whether there are penalties beside them.
    inputs, targets : Structure
        What one sample looks like.
    weights : Structure or None
        What the sample weights of one sample look like; None if the dataset gave none.
    outputs : Structure
        What the model returns for one input.
    environment : dict
        Versions, device and mode of execution, for information.
    shards : tuple of Shard
        The files of records.
    """

    run_id: str
    created: str
    status: str
    variables: tuple[VariableSpec, ...]
    state: tuple[VariableSpec, ...]
    optimizer: dict[str, Any]
    loss: dict[str, Any]
    inputs: Structure
    targets: Structure
    weights: Structure | None
    outputs: Structure
    environment: dict[str, Any]
    shards: tuple[Shard, ...]

    def with_shards(self, shards: tuple[Shard, ...], status: str) -> "Manifest":
        """Return a copy with other shards and status."""
        return replace(self, shards=shards, status=status)

    def shards_of(self, kind: str) -> tuple[Shard, ...]:
        """Return the shards of one kind (``"steps"`` or ``"samples"``) in order."""
        return tuple(shard for shard in self.shards if shard.kind == kind)


def new_run_id() -> str:
    """Return a fresh identifier of a run."""
    return uuid.uuid4().hex


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically: readers see the old one or the new one, never a part."""
    body = {"format_version": constants.FORMAT_VERSION, **asdict(manifest)}
    body["inputs"] = struct.to_json(manifest.inputs)
    body["targets"] = struct.to_json(manifest.targets)
    body["weights"] = None if manifest.weights is None else struct.to_json(manifest.weights)
    body["outputs"] = struct.to_json(manifest.outputs)
    path = run_dir / constants.MANIFEST_FILE
    temporary = path.with_name(path.name + constants.TEMPORARY_SUFFIX)
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump(body, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_directory(run_dir)


def sync_directory(path: Path) -> None:
    """Force a directory's entries to the disk, so that a rename survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_manifest(run_dir: Path) -> Manifest:
    """Read and check the manifest of a run directory.

    Raises
    ------
    RunFormatError
        If the directory is not a run, or the manifest is damaged or of another format version.
    """
    path = run_dir / constants.MANIFEST_FILE
    if not path.is_file():
        what = "is not a directory" if not run_dir.is_dir() else f"has no {constants.MANIFEST_FILE}"
        raise RunFormatError(
            f"{run_dir} is not a recorded run: it {what}. A run is made by training with "
            f"callbacks=[PathLogger(run_dir)]; give the directory that the logger wrote."
        )
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        return _manifest_from_json(body)
    except RunFormatError as error:
        raise RunFormatError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunFormatError(
            f"{path} is damaged: {type(error).__name__}: {error}. Restore it from a copy."
        ) from error


def _manifest_from_json(body: Any) -> Manifest:
    _expect(isinstance(body, dict), "the manifest must be a JSON object")
    version = body.get("format_version")
    _expect(
        version == constants.FORMAT_VERSION,
        f"format version {version!r} was written by another version of explaind_tf; "
        f"this one reads version {constants.FORMAT_VERSION}",
    )
    _expect(body["status"] in (RECORDING, COMPLETE), f"unknown status {body['status']!r}")
    for key in ("optimizer", "loss", "environment"):
        _expect(isinstance(body[key], dict), f"{key} must be an object")
    for key in ("variables", "state", "shards"):
        _expect(isinstance(body[key], list), f"{key} must be a list")
    shards = tuple(_shard_from_json(item) for item in body["shards"])
    _expect(len({shard.file for shard in shards}) == len(shards), "it names a shard twice")
    if body["status"] == COMPLETE:
        sealed = all(None not in (shard.count, shard.size, shard.sha256) for shard in shards)
        _expect(sealed, "a complete run must give count, size and sha256 of every shard")
    variables = tuple(_variable_from_json(item) for item in body["variables"])
    dtypes = {variable.dtype for variable in variables}
    _expect(
        dtypes <= {"float32"} or dtypes <= {"float64"},
        f"weights of dtypes {sorted(dtypes)}, not all float32 or float64",
    )
    return Manifest(
        run_id=str(body["run_id"]),
        created=str(body["created"]),
        status=body["status"],
        variables=variables,
        state=tuple(_variable_from_json(item) for item in body["state"]),
        optimizer=body["optimizer"],
        loss=body["loss"],
        inputs=struct.from_json(body["inputs"]),
        targets=struct.from_json(body["targets"]),
        weights=None if body["weights"] is None else struct.from_json(body["weights"]),
        outputs=struct.from_json(body["outputs"]),
        environment=body["environment"],
        shards=shards,
    )


def _variable_from_json(item: dict[str, Any]) -> VariableSpec:
    leaf = struct.from_json({"leaf": {"dtype": item["dtype"], "shape": item["shape"]}})
    assert isinstance(leaf, struct.Leaf)
    _expect(None not in leaf.shape, f"variable {item['path']!r} has an unknown size")
    shape = tuple(size for size in leaf.shape if size is not None)
    return VariableSpec(str(item["path"]), shape, leaf.dtype, bool(item["decay"]))


def _shard_from_json(item: dict[str, Any]) -> Shard:
    name = item["file"]
    _expect(
        isinstance(name, str) and len(PurePosixPath(name).parts) == 1 and name not in (".", ".."),
        f"shard {name!r} must be a file in the run directory itself",
    )
    for key in ("count", "size"):
        value = item[key]
        _expect(value is None or (isinstance(value, int) and value >= 0), f"shard {name!r}: {key}={value!r}")
    return Shard(name, str(item["kind"]), item["count"], item["size"], item["sha256"])


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise RunFormatError(f"{message}.")
