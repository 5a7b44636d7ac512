"""The graphs of the architectures that people use hold nothing that a graph of a run may not hold."""

import keras
import pytest
import tensorflow as tf

from experiments.architectures.registry import HUB, example_of
from experiments.architectures.registry import NAMES as ARCHITECTURES
from explaind_tf.runs.graphs.inspection import in_graph
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
    assert in_graph(step.graph.as_graph_def()) == []
    assert in_graph(forward.graph.as_graph_def()) == []
