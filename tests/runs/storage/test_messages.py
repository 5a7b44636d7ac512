"""TensorFlow's messages, read without TensorFlow."""

import tensorflow as tf

from explaind_tf.runs.storage.messages import DESCRIPTORS, message_class
from tests.runs.storage.write_messages import descriptors


def test_descriptors_are_those_of_tensorflow() -> None:
    """Another TensorFlow may have other fields. Then the file is written anew."""
    assert DESCRIPTORS.read_bytes() == descriptors().SerializeToString(deterministic=True)


def test_a_message_is_read_as_tensorflow_wrote_it() -> None:
    graph = tf.Graph()
    with graph.as_default():
        tf.constant([1.0, 2.0], name="two")
    saved = message_class("tensorflow.SavedModel")()
    saved.meta_graphs.add().graph_def.MergeFromString(graph.as_graph_def().SerializeToString())
    (node,) = saved.meta_graphs[0].graph_def.node
    assert (node.name, node.op, node.attr["dtype"].type) == ("two", "Const", tf.float32.as_datatype_enum)
