"""Changes of manifest, records and files. Each returns what it changed, and the files of the changed run."""

import copy
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError

from explaind_tf.runs.fingerprints import fingerprint
from tests.hostile import odd
from tests.hostile.run_files import MANIFEST, SAMPLES, STEPS, RunFiles, Special, frame, framed


@dataclass(frozen=True)
class Mutant:
    """A changed run.

    Attributes
    ----------
    kind : str
        How it was changed: the name of a function here.
    place : str
        What was changed, such as ``manifest: optimizer/constants/beta_1`` or ``steps: theta``.
    files : RunFiles
        Its files.
    """

    kind: str
    place: str
    files: RunFiles


Change = Callable[[random.Random, RunFiles], tuple[str, RunFiles]]


def manifest_value(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change a value anywhere in the manifest, and seal it anew."""
    body = copy.deepcopy(run.body)
    path = rng.choice(list(_places(body)))
    parent = body
    for key in path[:-1]:
        parent = parent[key]
    if rng.random() < 0.1:
        del parent[path[-1]]
    else:
        parent[path[-1]] = odd.json_value(rng, parent[path[-1]])
    return _place(path), run.with_body(body)


def _place(path: tuple[Any, ...]) -> str:
    names = "/".join("*" if isinstance(key, int) else key for key in path)
    return f"manifest: {names}"


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from _places(part, (*path, key))


def manifest_exchange(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Exchange two values of the manifest that have the same key, and seal it anew."""
    body = copy.deepcopy(run.body)
    paths = list(_places(body))
    first = rng.choice([path for path in paths if len(path) > 1])
    second = rng.choice([path for path in paths if path[-1] == first[-1] and len(path) == len(first)])
    one, two = (_parent(body, path) for path in (first, second))
    one[first[-1]], two[second[-1]] = two[second[-1]], one[first[-1]]
    places = sorted({_place(path) for path in (first, second)})
    return " and ".join(places), run.with_body(body)


def _parent(body: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        body = body[key]
    return body


def manifest_bytes(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change the text of the manifest without a new seal."""
    text = run.bytes_of(MANIFEST)
    deep = b"[" * rng.choice((50, 1000, 100_000))
    large = b"9" * rng.choice((400, 5000, 1_000_000))
    inserted = rng.choice(
        (deep, large, b"\xff", b"\\ud800", b'"a": 1, "a": 2,', b"NaN", b"-Infinity", b"1e999")
    )
    place = rng.randrange(len(text))
    return "manifest: text", run.with_file(
        MANIFEST, rng.choice((odd.flipped(rng, text), text[:place] + inserted + text[place:]))
    )


def record_field(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change a field of a record, with checksums and digests made anew."""
    file = rng.choice((STEPS, STEPS, SAMPLES))
    records = run.records(file)
    which = rng.randrange(len(records))
    example = tf.train.Example.FromString(records[which])
    features = example.features.feature
    name = rng.choice(sorted(features))
    feature = features[name]
    what = rng.random()
    if what < 0.05:
        del features[name]
    elif what < 0.1:
        name = rng.choice(_FIELDS)
        features[name].CopyFrom(feature)
    elif feature.WhichOneof("kind") == "int64_list":
        _change_integers(rng, feature.int64_list.value)
    else:
        _change_blobs(rng, name, feature.bytes_list.value, run)
    records[which] = example.SerializeToString(deterministic=True)
    return f"{file.split('-')[0]}: {name}", run.with_records(file, records)


_FIELDS = (
    *(
        "run",
        "kind",
        "step",
        "updates",
        "iteration",
        "learning_rate",
        "rows",
        "sample_count",
        "theta",
        "state",
    ),
    *("momentum", "second_moment", "accumulated", "optimizer", "digest", "weights", "weight_shapes"),
    *("clip_factors", "theta_stepped", "theta_before", "state_before", "is_skipped", "is_unchanged"),
    *("row", "fingerprint", "shapes", "tensors", "id"),
)


def _change_integers(rng: random.Random, values: Any) -> None:
    what = rng.random()
    if not values or what < 0.1:
        values.extend([odd.integer(rng, 0)] * rng.choice((1, 2, 1000)))
    elif what < 0.2:
        del values[rng.randrange(len(values))]
    elif what < 0.25:
        values[:] = list(values)[::-1]
    else:
        place = rng.randrange(len(values))
        values[place] = odd.integer(rng, values[place])


def _change_blobs(rng: random.Random, name: str, values: Any, run: RunFiles) -> None:
    what = rng.random()
    if not values or what < 0.05:
        values.append(rng.randbytes(rng.choice((0, 1, 8, 100))))
        return
    place = rng.randrange(len(values))
    itemsize = 8 if name in ("learning_rate", "clip_factors") else 4
    if what < 0.1:
        del values[place]
    elif what < 0.2 or len(values[place]) % itemsize or name in ("run", "kind", "id", "digest"):
        values[place] = odd.flipped(rng, values[place])
    else:
        values[place] = odd.floats(rng, values[place], itemsize)


def sample_made_anew(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change a number of a sample, with its fingerprint made anew, too."""
    records = run.records(SAMPLES)
    which = rng.randrange(len(records))
    example = tf.train.Example.FromString(records[which])
    blobs = example.features.feature["tensors"].bytes_list.value
    place = rng.randrange(len(blobs))
    blobs[place] = odd.floats(rng, blobs[place], 4)
    arrays = [np.frombuffer(blob, np.float32) for blob in blobs]
    example.features.feature["fingerprint"].int64_list.value[:] = [fingerprint(arrays)]
    records[which] = example.SerializeToString(deterministic=True)
    return "samples: tensors with their fingerprint", run.with_records(SAMPLES, records)


def record_bytes(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change bytes of a record, with checksums and digests made anew."""
    file = rng.choice((STEPS, SAMPLES))
    records = run.records(file)
    which = rng.randrange(len(records))
    before = records[which]
    records[which] = odd.flipped(rng, before)
    changed = [f"{file.split('-')[0]}: {name}" for name in _changed_fields(before, records[which])]
    return " and ".join(changed), run.with_records(file, records)


def _changed_fields(before: bytes, after: bytes) -> list[str]:
    """Return the fields in which two records differ."""
    try:
        one, two = (tf.train.Example.FromString(data).features.feature for data in (before, after))
    except DecodeError:
        return ["bytes of a record"]
    return sorted(
        name for name in {*one, *two} if name not in one or name not in two or one[name] != two[name]
    )


def record_order(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Remove, repeat or reorder records, with digests made anew."""
    file = rng.choice((STEPS, SAMPLES))
    records = run.records(file)
    one, two = rng.randrange(len(records)), rng.randrange(len(records))
    what = rng.randrange(5)
    if what == 0:
        del records[one]
    elif what == 1:
        records.insert(two, records[one])
    elif what == 2:
        records[one], records[two] = records[two], records[one]
    elif what == 3:
        del records[one:]
    else:
        records += records[one:] * rng.choice((1, 3))
    is_shorter = records == run.records(file)[: len(records)]
    changed = "the last records" if is_shorter else "order of records"
    return f"{file.split('-')[0]}: {changed}", run.with_records(file, records)


def record_head(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change the length that the head of a record states, with a checksum of the head that fits."""
    file = rng.choice((STEPS, SAMPLES))
    records = run.records(file)
    which = rng.randrange(len(records))
    length = rng.choice((odd.integer(rng, len(records[which])), 2**63, 2**64 - 1, 2**64 - 16))
    content = framed(records[:which]) + frame(records[which], length) + framed(records[which + 1 :])
    return f"{file.split('-')[0]}: head of a record", run.with_fitting(file, content)


def file_damaged(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change, cut or lengthen any file; digests stay as they were."""
    name = rng.choice(sorted(run.files))
    return f"damage: {name}", run.with_file(name, _other_content(rng, run.bytes_of(name)))


def file_made_anew(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change, cut or lengthen a file of records, with its digest made anew."""
    name = rng.choice((STEPS, SAMPLES))
    return f"{name.split('-')[0]}: bytes of the file", run.with_fitting(
        name, _other_content(rng, run.bytes_of(name))
    )


def _other_content(rng: random.Random, data: bytes) -> bytes:
    cut = rng.randrange(len(data))
    return rng.choice(
        (
            *(odd.flipped(rng, data), odd.flipped(rng, data), data[:cut], data[cut:], b"", data + bytes(16)),
            *(data + data, rng.randbytes(200), bytes(len(data))),
        )
    )


def file_exchanged(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Put the content of another file in the place of a file, with its digest made anew."""
    name, other = rng.sample([name for name in sorted(run.files) if name != MANIFEST], 2)
    if rng.random() < 0.5:
        return "exchange: of two files", run.with_fitting(name, run.bytes_of(other))
    return "exchange: of two files, with old digests", run.with_file(name, run.bytes_of(other)).with_file(
        other, run.bytes_of(name)
    )


def file_linked(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Put a link, a pipe or a directory in the place of a file, or beside the files."""
    names = [
        *sorted(run.files),
        "steps-00001.tfrecord",
        "steps-00000.tfrecord.tmp",
        "graphs/assets/a",
        "notes",
    ]
    name = rng.choice(names)
    specials = [
        Special("link", target) for target in ("/etc/passwd", "/dev/zero", "/", "absent", ".", MANIFEST)
    ]
    special = rng.choice(
        (*specials, Special("link", name.split("/")[-1]), Special("pipe"), Special("directory"))
    )
    return f"link: {name}", run.with_file(name, special)


CHANGES: dict[Change, float] = {
    manifest_value: 6,
    manifest_exchange: 1,
    manifest_bytes: 1,
    record_field: 6,
    sample_made_anew: 0.5,
    record_bytes: 2,
    record_order: 1,
    record_head: 1,
    file_damaged: 1,
    file_made_anew: 1,
    file_exchanged: 1,
    file_linked: 1,
}


def mutant(run: RunFiles, seed: int, changes: dict[Change, float]) -> Mutant:
    """Return the changed run of a seed."""
    rng = random.Random(seed)
    (change,) = rng.choices(list(changes), list(changes.values()))
    place, files = change(rng, run)
    return Mutant(change.__name__, place, files)
