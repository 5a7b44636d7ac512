"""Changes of the graphs of a run, with digests made anew: bytes, parts of the message, files of variables."""

import random
from typing import Any

from google.protobuf.message import Message
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto, BundleHeaderProto

from tests.hostile import odd
from tests.hostile.mutations import Change
from tests.hostile.run_files import RunFiles
from tests.hostile.tables import read_table, written_table


def graph_bytes(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change bytes of a file of the graphs."""
    name = rng.choice([name for name in sorted(run.files) if name.startswith("graphs/")])
    return f"graphs: bytes of {name}", run.with_fitting(name, odd.flipped(rng, run.bytes_of(name)))


def graph_message(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change a field of a SavedModel, anywhere in it."""
    name = rng.choice([name for name in sorted(run.files) if name.endswith("saved_model.pb")])
    model = SavedModel.FromString(run.bytes_of(name))
    place = _change(rng, model)
    return f"graphs: {place}", run.with_fitting(name, model.SerializeToString(deterministic=True))


def _change(rng: random.Random, message: Message) -> str:
    """Change a field of a message or of one within it, and return the field's name.

    Larger messages are entered more often: most of a SavedModel is its functions.
    """
    while True:
        present = message.ListFields()
        if not present:
            return "nothing"
        choices = [
            (field, value, part) for field, value in present for part in _messages(field, value) or [None]
        ]
        weights = [1 if part is None else 1 + part.ByteSize() for _, _, part in choices]
        ((field, value, part),) = rng.choices(choices, weights)
        if part is None or rng.random() < 0.05:
            break
        message = part
    parts = _messages(field, value)
    what = f"{message.DESCRIPTOR.name}.{field.name}"
    if parts or rng.random() < 0.1:
        message.ClearField(field.name)
    elif field.is_repeated:
        _change_list(rng, field, value)
    else:
        setattr(message, field.name, _other(rng, field, value))
    return what


def _messages(field: Any, value: Any) -> list[Message]:
    if field.message_type is None:
        return []
    if field.message_type.GetOptions().map_entry:
        parts = [value[key] for key in sorted(value)]  # in one order, so that a seed is one change
        return [part for part in parts if isinstance(part, Message)]
    return list(value) if field.is_repeated else [value]


def _change_list(rng: random.Random, field: Any, values: Any) -> None:
    if field.message_type is not None:  # a map of numbers or texts
        values.clear()
        return
    place = rng.randrange(len(values))
    what = rng.randrange(4)
    if what == 0:
        del values[place]
    elif what == 1:
        values.append(values[place])
    else:
        values[place] = _other(rng, field, values[place])


def _other(rng: random.Random, field: Any, old: Any) -> Any:
    if field.cpp_type == field.CPPTYPE_BOOL:
        return not old
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return odd.number(rng, old)
    if field.type == field.TYPE_BYTES:
        return odd.flipped(rng, old)
    if field.type == field.TYPE_STRING:
        return rng.choice((old + "x", old[:-1], old[::-1], *(text for text in odd.TEXTS if text != "\x00")))
    bits = 31 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 63
    lowest = 0 if field.cpp_type in (field.CPPTYPE_UINT32, field.CPPTYPE_UINT64) else -(2**bits)
    return max(lowest, min(2**bits - 1, odd.integer(rng, old)))


def variables_index(rng: random.Random, run: RunFiles) -> tuple[str, RunFiles]:
    """Change what an index of variables states, with its checksums made anew."""
    name = rng.choice([name for name in sorted(run.files) if name.endswith("variables.index")])
    entries = read_table(run.bytes_of(name))
    key = rng.choice(sorted(entries))
    message = (BundleEntryProto if key else BundleHeaderProto).FromString(entries[key])
    if rng.random() < 0.2:
        message.shape.dim.add(size=odd.integer(rng, 1)) if key else setattr(
            message, "num_shards", odd.integer(rng, 1) % 2**31
        )
    place = _change(rng, message)
    if rng.random() < 0.1:
        entries[odd.flipped(rng, key)] = entries.pop(key)
    entries[key] = message.SerializeToString()
    return f"graphs: index of variables, {place}", run.with_fitting(name, written_table(entries))


GRAPH_CHANGES: dict[Change, float] = {graph_bytes: 1, graph_message: 3, variables_index: 1}
