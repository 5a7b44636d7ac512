"""The manifest: what a run directory holds, as frozen dataclasses and JSON.

The manifest is the commit point of a run. It is read with as little trust as any file: unknown versions,
missing fields and values of the wrong type are refused by name.
"""

import math
import os
import re
import reprlib
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from explaind_tf import constants
from explaind_tf.errors import RunFormatError
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.structure import Structure
from explaind_tf.runs.storage.digests import FileDigest, require_inside
from explaind_tf.runs.storage.files import AnyPath, refresh, sync_file
from explaind_tf.runs.storage.sealed import MOST_BYTES, SEAL, check_seal, parse, seal

RECORDING = "recording"
COMPLETE = "complete"

STEPS, SAMPLES = "steps", "samples"
SHARD_NAMES = {STEPS: constants.STEPS_SHARD, SAMPLES: constants.SAMPLES_SHARD}


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
    optimizer_state : tuple of VariableSpec
        The optimizer's variables beside its moments and accumulated gradients.
    every : int
        Steps from one keyframe to the next; 1 if every step is one.
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
    graphs : tuple of FileDigest
        The files of the SavedModel.
    shards : tuple of Shard
        The files of records.
    """

    run_id: str
    created: str
    status: str
    variables: tuple[VariableSpec, ...]
    state: tuple[VariableSpec, ...]
    optimizer: dict[str, Any]
    optimizer_state: tuple[VariableSpec, ...]
    every: int
    loss: dict[str, Any]
    inputs: Structure
    targets: Structure
    weights: Structure | None
    outputs: Structure
    environment: dict[str, Any]
    graphs: tuple[FileDigest, ...]
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


def encode_manifest(manifest: Manifest) -> bytes:
    """Return the manifest as it is written."""
    body = {"format_version": constants.FORMAT_VERSION, **asdict(manifest)}
    body["inputs"] = struct.to_json(manifest.inputs)
    body["targets"] = struct.to_json(manifest.targets)
    body["weights"] = None if manifest.weights is None else struct.to_json(manifest.weights)
    body["outputs"] = struct.to_json(manifest.outputs)
    return seal(body)


def write_manifest(run_dir: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically: readers see the old one or the new one, never a part."""
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
    if not path.is_file():
        what = "is not a directory" if not run_dir.is_dir() else f"has no {constants.MANIFEST_FILE}"
        raise RunFormatError(
            f"{run_dir} is not a recorded run: it {what}. A run is made by training with "
            f"callbacks=[PathLogger(run_dir)]; give the directory that the logger wrote."
        )
    require_inside(path, run_dir)
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        body = parse(data)
        _check_version(body)
        check_seal(data)
        return _manifest_from_json(body)
    except OSError as error:
        raise RunFormatError(f"{path} cannot be read: {error.strerror or error}.") from error
    except RunFormatError as error:
        raise RunFormatError(f"{path}: {error}") from error
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise RunFormatError(
            f"{path} is damaged: {type(error).__name__}: {error}. Restore it from a copy."
        ) from error


def _check_version(body: Any) -> None:
    _expect(isinstance(body, dict), "the manifest must be a JSON object")
    version = body.get("format_version")
    _expect(
        type(version) is int and version == constants.FORMAT_VERSION,
        f"format version {_short(version)} was written by another version of explaind_tf; "
        f"this one reads version {constants.FORMAT_VERSION}. Record it again, or read it with the version that wrote it",
    )


def _manifest_from_json(body: dict[str, Any]) -> Manifest:
    known = {field.name for field in fields(Manifest)} | {"format_version", SEAL}
    _expect(set(body) <= known, f"unknown fields {_short(sorted(set(body) - known))}")
    _expect(body["status"] in (RECORDING, COMPLETE), f"unknown status {_short(body['status'])}")
    for key in ("optimizer", "loss", "environment"):
        _expect(isinstance(body[key], dict), f"{key} must be an object")
    for key in ("variables", "state", "optimizer_state", "graphs", "shards"):
        _expect(isinstance(body[key], list), f"{key} must be a list")
    run_id = _text(body, "run_id")
    _expect(re.fullmatch("[0-9a-f]{32}", run_id) is not None, f"run_id {_short(run_id)} is none")
    _check_optimizer(body["optimizer"])
    _expect(_is_count(body["every"]) and body["every"] > 0, f"every={_short(body['every'])}")
    shards = tuple(_shard_from_json(item) for item in body["shards"])
    _expect(len({shard.file for shard in shards}) == len(shards), "it names a shard twice")
    for kind, name in SHARD_NAMES.items():
        files = [shard.file for shard in shards if shard.kind == kind]
        _expect(
            files == [name.format(i) for i in range(len(files))], f"{kind} files {_short(files)} out of order"
        )
    if body["status"] == COMPLETE:
        is_sealed = all(None not in (shard.count, shard.size, shard.sha256) for shard in shards)
        _expect(is_sealed, "a complete run must give count, size and sha256 of every shard")
    variables = tuple(_variable_from_json(item) for item in body["variables"])
    paths = [variable.path for variable in variables]
    _expect(len(set(paths)) == len(paths), "it names a variable twice")
    graphs = tuple(_digest_from_json(item) for item in body["graphs"])
    _expect(len({item.file for item in graphs}) == len(graphs), "it names a file of the graphs twice")
    dtypes = {variable.dtype for variable in variables}
    _expect(
        dtypes <= {"float32"} or dtypes <= {"float64"},
        f"weights of dtypes {sorted(dtypes)}, not all float32 or float64",
    )
    return Manifest(
        run_id=run_id,
        created=_text(body, "created"),
        status=body["status"],
        variables=variables,
        state=tuple(_variable_from_json(item) for item in body["state"]),
        optimizer=body["optimizer"],
        optimizer_state=tuple(_variable_from_json(item) for item in body["optimizer_state"]),
        every=body["every"],
        loss=body["loss"],
        inputs=struct.from_json(body["inputs"]),
        targets=struct.from_json(body["targets"]),
        weights=None if body["weights"] is None else struct.from_json(body["weights"]),
        outputs=struct.from_json(body["outputs"]),
        environment=body["environment"],
        graphs=graphs,
        shards=shards,
    )


def _variable_from_json(item: dict[str, Any]) -> VariableSpec:
    leaf = struct.from_json({"leaf": {"dtype": item["dtype"], "shape": item["shape"]}})
    assert isinstance(leaf, struct.Leaf)
    _expect(None not in leaf.shape, f"variable {_short(item['path'])} has an unknown size")
    shape = tuple(size for size in leaf.shape if size is not None)
    _expect(
        isinstance(item["decay"], bool), f"variable {_short(item['path'])}: decay={_short(item['decay'])}"
    )
    return VariableSpec(_text(item, "path"), shape, leaf.dtype, item["decay"])


def _digest_from_json(item: dict[str, Any]) -> FileDigest:
    name = _text(item, "file")
    _expect(
        _is_count(item["size"]) and _is_sha256(item["sha256"]), f"size or sha256 of {_short(name)} is none"
    )
    return FileDigest(name, item["size"], item["sha256"])


def _shard_from_json(item: dict[str, Any]) -> Shard:
    name, kind = item["file"], item["kind"]
    # Names are known beforehand: none can lead to another place, or be taken for another kind.
    _expect(
        isinstance(name, str) and re.fullmatch(r"[a-z]+-[0-9]{5,9}\.tfrecord", name) is not None,
        f"shard {_short(name)} must be a file in the run directory itself",
    )
    _expect(
        kind in (STEPS, SAMPLES) and name.startswith(f"{kind}-"), f"shard {name!r} of kind {_short(kind)}"
    )
    values = {key: item[key] for key in ("count", "size", "sha256")}
    for key in ("count", "size"):
        _expect(values[key] is None or _is_count(values[key]), f"shard {name!r}: {key}={_short(values[key])}")
    sha256 = values["sha256"]
    _expect(sha256 is None or _is_sha256(sha256), f"shard {name!r}: sha256={_short(sha256)}")
    return Shard(name, kind, **values)


def _check_optimizer(body: dict[str, Any]) -> None:
    """Check what others look up in it without asking."""
    law = body["law"], body["constants"]
    _expect(
        isinstance(law[0], str) and isinstance(law[1], dict), "optimizer must give a law and its constants"
    )
    _expect(isinstance(body["second_moment"], bool), "optimizer.second_moment must be true or false")
    accumulates, clipvalue = body["accumulates"], body["clipvalue"]
    _expect(_is_count(accumulates) and accumulates > 0, f"optimizer.accumulates={_short(accumulates)}")
    is_number = isinstance(clipvalue, (int, float)) and not isinstance(clipvalue, bool)
    _expect(clipvalue is None or is_number, f"optimizer.clipvalue={_short(clipvalue)}")


def _text(body: dict[str, Any], key: str) -> str:
    _expect(isinstance(body[key], str), f"{key} must be a string; found {_short(body[key])}")
    return body[key]


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def _short(value: Any) -> str:
    return reprlib.repr(value)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise RunFormatError(f"{message}.")
