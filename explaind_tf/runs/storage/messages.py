"""TensorFlow's protocol buffers without TensorFlow, which takes seconds to import.

``messages.binpb`` holds their descriptors. ``python -m tests.runs.storage.write_messages`` writes it
anew, from the TensorFlow that is installed; a test compares the two.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

DESCRIPTORS = Path(__file__).with_name("messages.binpb")


@lru_cache
def message_class(name: str) -> Any:
    """Return the class of a message.

    Parameters
    ----------
    name : str
        Its full name, such as ``"tensorflow.Example"``.
    """
    return GetMessageClass(_pool().FindMessageTypeByName(name))


def enum_number(enum: str, value: str) -> int:
    """Return the number of a value of an enum, such as ``"DT_FLOAT"`` of ``"tensorflow.DataType"``."""
    return _pool().FindEnumTypeByName(enum).values_by_name[value].number


@lru_cache
def _pool() -> DescriptorPool:
    """Return a pool of its own: TensorFlow registers the same names in protobuf's default pool."""
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool
