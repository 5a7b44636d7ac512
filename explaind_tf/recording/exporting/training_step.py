"""Export of the training step itself, with which the steps between keyframes can be trained again."""

from typing import Any

import keras
import tensorflow as tf

from explaind_tf.errors import RefusedError
from explaind_tf.optimizers import PathOptimizer
from explaind_tf.recording.exporting.pure_functions import save_module
from explaind_tf.recording.observing.batches import BatchForm
from explaind_tf.runs.graphs.training_variables import TrainingVariables

_PYTHON_CALLS = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


class TrainingStep(tf.Module):
    """Keras' own training step, together with the variables that it reads and changes.

    It is compiled exactly as Keras compiles it, including metrics. Another graph of the same mathematics would be fused
    differently, and would differ in the last bits.

    Parameters
    ----------
    model : keras.Model
        Built and compiled.
    optimizer : PathOptimizer
        The model's optimizer, built.
    variables : TrainingVariables
        The variables of model and optimizer.
    form : BatchForm
        The form of a batch.

    Raises
    ------
    RefusedError
        If the step cannot be repeated from its graph alone.
    """

    def __init__(
        self, model: keras.Model, optimizer: PathOptimizer, variables: TrainingVariables, form: BatchForm
    ) -> None:
        super().__init__(name="training_step")
        if model.run_eagerly:
            raise RefusedError(
                "The model was compiled with run_eagerly=True. Steps between keyframes are trained again from a compiled "
                "graph, which rounds differently. Compile without run_eagerly=True, or record every step: "
                "PathLogger(every=1)."
            )
        for name, group in variables.by_group().items():
            setattr(self, name, group)
        rate = optimizer._learning_rate
        self.iterations = optimizer._iterations.value
        self.learning_rate = [rate.value] if isinstance(rate, keras.Variable) else []
        self.stepped = optimizer.stepped_buffers(model.trainable_variables)
        self.step = _traced(model, form)
        graph = self.step.get_concrete_function().graph
        _refuse_python(graph)
        known = {id(variable) for variable in self.variables}
        # Metrics and the optimizer's notes. No weight depends on them, but the step writes to them.
        self.others = [variable for variable in graph.variables if id(variable) not in known]

    @property
    def byte_count(self) -> int:
        """Approximate bytes of graph and variables."""
        values = sum(variable.shape.num_elements() * variable.dtype.size for variable in self.variables)
        return values + self.step.get_concrete_function().graph.as_graph_def().ByteSize()

    def save(self, path: str) -> None:
        """Write the step as a SavedModel."""
        save_module(self, path)


def _traced(model: keras.Model, form: BatchForm) -> Any:
    # As in keras/src/backend/tensorflow/trainer.py::_make_function.
    one_step = tf.function(
        tf.autograph.experimental.do_not_convert(model.train_step),
        reduce_retracing=True,
        jit_compile=model.jit_compile,
    )

    def step(*flat: tf.Tensor) -> list[tf.Tensor]:
        return tf.nest.flatten(one_step(form.pack(flat)))

    return tf.function(step, input_signature=list(form.specs), autograph=False)


def _refuse_python(graph: Any) -> None:
    definition = graph.as_graph_def()
    nodes = [*definition.node, *(node for f in definition.library.function for node in f.node_def)]
    found = sorted({node.name for node in nodes if node.op in _PYTHON_CALLS})
    if found:
        raise RefusedError(
            f"The training step calls Python ({', '.join(found[:3])}: tf.numpy_function or tf.py_function). Python is not "
            f"recorded, so steps between keyframes could not be trained again. Record every step: PathLogger(every=1)."
        )
