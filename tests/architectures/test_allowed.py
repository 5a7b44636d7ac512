"""The graphs of the architectures that people use hold nothing that a graph of a run may not hold, and no odd sizes."""

import keras
import pytest
import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

from experiments.architectures.registry import HUB, example_of
from experiments.architectures.registry import NAMES as ARCHITECTURES
from explaind_tf.runs.graphs.inspection import in_graph
from explaind_tf.runs.graphs.possible_sizes import check_sizes
from tests.nightly import sweep


@pytest.mark.filterwarnings("ignore:.*was passed an input with a mask attached:UserWarning")  # T5
@pytest.mark.parametrize("name", sweep(ARCHITECTURES, daily=False))
def test_training_and_prediction_are_allowed(name: str):
    if name in HUB:
        pytest.importorskip("keras_hub", exc_type=ImportError)
    example = example_of(name)
    model = example.model
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    inputs, targets = next(iter(example.dataset))
    model(inputs)
    model.optimizer.build(model.trainable_variables)
    step = tf.function(model.train_step, autograph=False).get_concrete_function((inputs, targets))
    forward = tf.function(lambda x: model(x, training=False), autograph=False).get_concrete_function(inputs)
    for function in (step, forward):
        graph_def = function.graph.as_graph_def()
        assert in_graph(graph_def) == []
        saved = SavedModel()
        saved.meta_graphs.add().graph_def.CopyFrom(graph_def)
        check_sizes(saved, name)
