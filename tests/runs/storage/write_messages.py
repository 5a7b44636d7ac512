"""Write the descriptors of the messages that a run is read with: ``python -m tests.runs.storage.write_messages``."""

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from tensorflow.core.example import example_pb2
from tensorflow.core.protobuf import config_pb2, saved_model_pb2

from explaind_tf.runs.storage.messages import DESCRIPTORS


def descriptors() -> FileDescriptorSet:
    """Return the descriptors of the messages and of all that they refer to, from the TensorFlow that is installed."""
    files: dict[str, FileDescriptorProto] = {}
    for module in (saved_model_pb2, config_pb2, example_pb2):
        _add(module.DESCRIPTOR, files)
    return FileDescriptorSet(file=files.values())


def _add(file: Any, files: dict[str, FileDescriptorProto]) -> None:
    if file.name in files:
        return
    for other in file.dependencies:
        _add(other, files)
    files[file.name] = FileDescriptorProto()
    file.CopyToProto(files[file.name])


if __name__ == "__main__":
    DESCRIPTORS.write_bytes(descriptors().SerializeToString(deterministic=True))
