"""The SavedModel of a run: the model as pure functions, parameters as arguments."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

# There is no public way to these.
from tensorflow.python.eager import context
from tensorflow.python.framework.convert_to_constants import _run_inline_graph_optimization

from explaind_tf.errors import RefusedError, RunFormatError
from explaind_tf.runs.graphs.canonical import graph_digest

FORWARD = "forward"
SAMPLE_LOSSES = "sample_losses"
TOKEN_LOSSES = "token_losses"
LOSS_SCALES = "loss_scales"
PENALTY = "penalty"

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")

# Numbers the copies of graphs that are made in this process.
_COPIES = itertools.count()


class InlinedFunction:
    """A function of a run, whose nodes each call copies into the graph that is being built.

    Parameters
    ----------
    concrete : tf.types.experimental.ConcreteFunction
        The function.

    """

    def __init__(self, concrete: Any) -> None:
        self._graph_def = _expanded(concrete)
        self._inputs = [tensor.name for tensor in concrete.inputs]
        self._outputs = [tensor.name for tensor in concrete.outputs]
        self._captured = list(concrete.captured_inputs)

    @cached_property
    def digest(self) -> str | None:
        """Equal for functions that compute the same; None if the function depends on more than its arguments."""
        if self._captured:
            return None
        return graph_digest(self._graph_def, self._inputs, self._outputs)

    def __call__(self, *arguments: tf.Tensor) -> list[tf.Tensor]:
        """Return the outputs."""
        # The import wants tensors of the very graph that is being built (which may be a loop body); unlike other
        # operations it does not capture those of an enclosing one.
        values = [tf.identity(value) for value in (*arguments, *self._captured)]
        input_map = dict(zip(self._inputs, values, strict=True))
        copy = _with_own_functions(self._graph_def, f"_copy_{next(_COPIES)}")
        return tf.graph_util.import_graph_def(copy, input_map, self._outputs, name="inlined")


@dataclass(frozen=True)
class LossFunctions:
    """The functions that the gradient of a batch is made of; see :class:`Graphs`. They can be called eagerly."""

    sample_losses: Callable[..., list[tf.Tensor]]
    loss_scales: Callable[..., list[tf.Tensor]]
    penalty: Callable[..., list[tf.Tensor]]


class Graphs:
    """The pure functions of a run, ready to be inlined into other graphs.

    - ``forward(*params, *state, *inputs) -> [*outputs]``, inference mode;
    - ``sample_losses(*params, *state, *inputs, *targets, *weights, scales) -> [losses, *new_state]``, training mode:
      what each sample adds to Keras' loss of the batch, given the scales of the L compiled losses, shape (L,);
    - ``token_losses``, of the same arguments ``-> [losses]``: those of positions, shape (batch, positions). Only where
      the losses have values for positions, otherwise None. ``token_count`` is their number, None if it may differ;
    - ``loss_scales(*params, *state, *inputs, *targets, *weights) -> [scales]`` of a whole batch;
    - ``penalty(*params, *state, *inputs) -> [scalar]``, training mode: the sum of ``model.losses``.

    All arguments are flat lists of tensors. Each call copies the function's nodes into the graph that is
    being built. Symbolic differentiation then sees plain operations, as often as needed: forward mode
    through a *call* of a loaded function fails in TensorFlow 2.21 where a gradient is sparse (embeddings).

    Parameters
    ----------
    path : Path
        The SavedModel directory. It is executed as a TensorFlow graph; no Python is loaded from it.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._module: Any = tf.saved_model.load(str(path))
        except Exception as error:  # whatever TensorFlow trips over in a file that is no SavedModel
            raise RunFormatError(
                f"{path} cannot be loaded as a SavedModel: {error}. Restore it from a copy."
            ) from error
        names = (FORWARD, SAMPLE_LOSSES, LOSS_SCALES, PENALTY)
        missing = [name for name in names if not hasattr(self._module, name)]
        if missing:
            raise RunFormatError(f"{path} lacks the functions {missing}: it was not written by a PathLogger.")
        try:
            self._take_functions()
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise RunFormatError(
                f"{path} holds functions of another form: {error}. It was not written by a PathLogger."
            ) from error

    def _take_functions(self) -> None:
        forward = self._function(FORWARD)
        self.forward = InlinedFunction(forward)
        self.sample_losses = InlinedFunction(self._function(SAMPLE_LOSSES))
        has_tokens = hasattr(self._module, TOKEN_LOSSES)
        self.token_losses: InlinedFunction | None = None
        self.token_count: int | None = None
        if has_tokens:
            tokens = self._function(TOKEN_LOSSES)
            self.token_losses = InlinedFunction(tokens)
            self.token_count = tokens.outputs[0].shape[1]
        self.loss_scales = InlinedFunction(self._function(LOSS_SCALES))
        self.penalty = InlinedFunction(self._function(PENALTY))
        self.forward_bytes_per_input = _float_bytes_per_row(forward)

    @property
    def losses_digest(self) -> tuple[str | None, ...] | None:
        """The digests of all functions of losses; None if one of them has none."""
        functions = (self.sample_losses, self.loss_scales, self.penalty, self.token_losses)
        digests = tuple(None if function is None else function.digest for function in functions)
        is_known = all(digest is not None for digest in digests[:3])
        return digests if is_known and (digests[3] or self.token_losses is None) else None

    def loss_functions(self) -> LossFunctions:
        """Return the losses to be called outside of a graph."""
        return LossFunctions(*map(tf.function, (self.sample_losses, self.loss_scales, self.penalty)))

    def _function(self, name: str) -> Any:
        return getattr(self._module, name).concrete_functions[0]


class ForwardGraph:
    """The forward pass alone, of a model that was never recorded; otherwise as :class:`Graphs`.

    Parameters
    ----------
    forward : tf.types.experimental.ConcreteFunction
        ``(*params, *state, *inputs) -> [*outputs]``, inference mode.
    """

    token_losses: InlinedFunction | None = None
    token_count: int | None = None
    losses_digest: tuple[str | None, ...] | None = None

    def __init__(self, forward: Any) -> None:
        self.forward = InlinedFunction(forward)
        self.forward_bytes_per_input = _float_bytes_per_row(forward)

    @staticmethod
    def _has_no_loss(*_: tf.Tensor) -> list[tf.Tensor]:
        raise RefusedError(
            "Losses are known of a recorded run only; here there is nothing but a forward pass."
        )

    sample_losses = loss_scales = penalty = _has_no_loss


def has_calls(concrete: Any) -> list[str]:
    """Return the calls of functions that cannot be expanded, and so not be differentiated."""
    return [node.name for node in _expanded(concrete).node if node.op in _CALLS]


def _expanded(concrete: Any) -> Any:
    """Return the graph of a function with the functions that it calls expanded into it.

    A ``tf.function`` within a model is a call, which nothing differentiates once it comes from a file. Loops and branches
    stay as they are.
    """
    graph_def = concrete.graph.as_graph_def()
    if not any(node.op in _CALLS for node in graph_def.node):
        return graph_def
    return _run_inline_graph_optimization(concrete, lower_control_flow=False, aggressive_inlining=True)


def _with_own_functions(graph_def: Any, suffix: str) -> Any:
    """Return a copy of a graph whose library functions (bodies of loops, branches) have names of their own.

    The gradient of a loop replaces the loop's functions by others that it names after them: with two copies of one
    recurrent layer, they would get into each other's way ("duplicate function … _rewritten").
    """
    if not graph_def.library.function:
        return graph_def
    copy = type(graph_def)()
    copy.CopyFrom(graph_def)
    own = {function.signature.name for function in copy.library.function}
    nodes = [*copy.node, *(node for function in copy.library.function for node in function.node_def)]
    for node in nodes:
        if node.op in own:
            node.op += suffix
        for value in node.attr.values():
            for reference in (value.func, *value.list.func):
                if reference.name in own:  # to write into another value would turn it into a function
                    reference.name += suffix
    for function in copy.library.function:
        function.signature.name += suffix
        # What imports a graph leaves it to the loader of the model to make its functions known to the runtime.
        context.context().add_function_def(function)
    for gradient in copy.library.gradient:
        gradient.function_name += suffix if gradient.function_name in own else ""
        gradient.gradient_func += suffix if gradient.gradient_func in own else ""
    return copy


def _float_bytes_per_row(concrete: Any) -> int:
    """Return the bytes of all intermediate float tensors for one row of the batch.

    Rows are told by a leading dimension of unknown size. An estimate for choosing batch sizes only.
    """
    total = 0
    for operation in concrete.graph.get_operations():
        for tensor in operation.outputs:
            shape = tensor.shape
            if tensor.dtype.is_floating and shape.rank and shape[0] is None:
                rest = shape[1:].num_elements()
                total += (rest or 0) * tensor.dtype.size
    return total
