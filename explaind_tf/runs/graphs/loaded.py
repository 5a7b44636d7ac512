"""The SavedModel of a run: the model as pure functions, parameters as arguments."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from explaind_tf.errors import RunFormatError
from explaind_tf.runs.graphs.agreement import Signature
from explaind_tf.runs.graphs.canonical import graph_digest
from explaind_tf.runs.graphs.checked_load import load_checked
from explaind_tf.runs.graphs.custom_gradients import obey, recorded_gradients, without_registered
from explaind_tf.runs.graphs.expanded import expanded, with_own_functions
from explaind_tf.runs.graphs.graph_files import (
    CUSTOM_GRADIENTS,
    FORWARD,
    LOSS_SCALES,
    PENALTY,
    SAMPLE_LOSSES,
    TOKEN_LOSSES,
)
from explaind_tf.runs.graphs.grouped_convolutions import ungroup
from explaind_tf.runs.graphs.precision import computes_in, in_precision, narrower_than
from explaind_tf.runs.graphs.seen_through import see_through, seen_through

# The scope of a function's operations in the graph that calls it.
INLINED = "inlined"
# Numbers the copies of graphs made in this process.
_COPIES = itertools.count()


class InlinedFunction:
    """A function of a run, whose nodes each call copies into the graph that is being built.

    Parameters
    ----------
    graph_def : tf.compat.v1.GraphDef
        The graph.
    inputs, outputs : list of str
        Names of the tensors that are arguments and results.
    captured : list of tf.Tensor
        Values of the last inputs, which calls do not give.
    gradients : mapping
        The recorded custom gradients of its operations, by name.
    is_seen_through : bool
        Whether derivatives are those of the function, whatever training was told.
    """

    def __init__(
        self,
        graph_def: Any,
        inputs: list[str],
        outputs: list[str],
        captured: list[Any],
        gradients: "Mapping[str, InlinedFunction] | None" = None,
        *,
        is_seen_through: bool = False,
    ) -> None:
        self._graph_def, self._inputs, self._outputs, self._captured = graph_def, inputs, outputs, captured
        self._gradients, self._is_seen_through = gradients or {}, is_seen_through

    @classmethod
    def of(cls, concrete: Any, gradients: "Mapping[str, InlinedFunction] | None" = None) -> "InlinedFunction":
        """Return a concrete function in this form."""
        found = expanded(concrete)
        graph_def, captured = without_registered(found.graph_def), list(concrete.captured_inputs)
        return cls(graph_def, found.inputs, found.outputs, captured, gradients)

    @cached_property
    def digest(self) -> tuple[str, ...] | None:
        """Equal for functions that compute the same; None if the function depends on more than its arguments."""
        if self._captured:
            return None
        own = graph_digest(self._graph_def, self._inputs, self._outputs)
        names = sorted(set(recorded_gradients(self._graph_def).values())) if self._gradients else []
        parts = [self._gradients[name].digest for name in names]
        known = [part for part in parts if part is not None]
        if own is None or len(known) < len(parts):
            return None
        return (own, *(text for part in known for text in part))

    def seen_through(self) -> "InlinedFunction":
        """Return the same function, with derivatives that are its own; see :func:`seen_through`."""
        graph_def = seen_through(self._graph_def)
        return InlinedFunction(graph_def, self._inputs, self._outputs, self._captured, is_seen_through=True)

    @cached_property
    def computes_in(self) -> set[tf.DType]:
        """The floating-point types that it computes in."""
        return computes_in(self._graph_def)

    def in_precision(self, dtype: tf.DType, samples: slice) -> "InlinedFunction":
        """Return the function in another precision; see :func:`in_precision`.

        The arguments in ``samples`` keep their type, all other floating-point arguments have the new one.
        """
        arguments = self._inputs[: len(self._inputs) - len(self._captured)]
        kept = [name.split(":")[0] for name in (*arguments[samples], *self._inputs[len(arguments) :])]
        twin = in_precision(self._graph_def, dtype, kept)
        outputs = [twin.renamed.get(name, name) for name in self._outputs]
        gradients = {name: own.in_precision(dtype, slice(0)) for name, own in self._gradients.items()}
        return InlinedFunction(
            twin.graph_def,
            self._inputs,
            outputs,
            self._captured,
            gradients,
            is_seen_through=self._is_seen_through,
        )

    def __call__(self, *arguments: tf.Tensor) -> list[tf.Tensor]:
        """Return the outputs."""
        graph = tf.compat.v1.get_default_graph()
        values = [_of_graph(value, graph) for value in (*arguments, *self._captured)]
        input_map = dict(zip(self._inputs, values, strict=True))
        copy = with_own_functions(self._graph_def, f"_copy_{next(_COPIES)}")
        before = len(graph.get_operations())
        obeyed = recorded_gradients(self._graph_def) if self._gradients else {}
        made = tf.graph_util.import_graph_def(copy, input_map, [*self._outputs, *obeyed], name=INLINED)
        outputs, operations = made[: len(self._outputs)], made[len(self._outputs) :]
        for operation, name in zip(operations, obeyed.values(), strict=True):
            obey(operation, self._gradients[name])
        added = graph.get_operations()[before:]
        if self._is_seen_through:
            see_through(added)
        return ungroup(added, outputs)


def _of_graph(value: tf.Tensor, graph: tf.Graph) -> tf.Tensor:
    """Return a tensor of the graph that is being built, which may be a loop body, with the same value.

    An import needs it: unlike other operations, it does not capture tensors of an enclosing graph.
    """
    is_own = tf.is_symbolic_tensor(value) and value.graph is graph
    return value if is_own else tf.identity(value)


@dataclass(frozen=True)
class RunFunctions:
    """The functions of a run in one precision, see :class:`Graphs`; those of losses are None if there are no losses."""

    forward: InlinedFunction
    sample_losses: InlinedFunction | None = None
    token_losses: InlinedFunction | None = None
    loss_scales: InlinedFunction | None = None
    penalty: InlinedFunction | None = None

    @property
    def losses_digest(self) -> tuple[tuple[str, ...] | None, ...] | None:
        """The digests of all functions of losses; None if one of them has none."""
        functions = (self.sample_losses, self.loss_scales, self.penalty, self.token_losses)
        digests = tuple(None if function is None else function.digest for function in functions)
        is_known = all(digest is not None for digest in digests[:3])
        return digests if is_known and (digests[3] or self.token_losses is None) else None

    @property
    def computes_in(self) -> set[tf.DType]:
        """The floating-point types that they compute in."""
        found = (self.forward, self.sample_losses, self.penalty)
        return set().union(*(function.computes_in for function in found if function is not None))

    def in_precision(self, dtype: tf.DType, variables: int) -> "RunFunctions":
        """Return the functions in another precision: the first arguments, ``variables`` of them, and the scales have it.

        Functions that compute in nothing narrower are returned as they are.
        """
        if not self.computes_in & set(narrower_than(dtype)):
            return self
        samples, before_scales = slice(variables, None), slice(variables, -1)

        def twin(function: InlinedFunction | None, kept: slice) -> Any:
            return None if function is None else function.in_precision(dtype, kept)

        return RunFunctions(
            forward=twin(self.forward, samples),
            sample_losses=twin(self.sample_losses, before_scales),
            token_losses=twin(self.token_losses, before_scales),
            loss_scales=twin(self.loss_scales, samples),
            penalty=twin(self.penalty, samples),
        )


@dataclass(frozen=True)
class LossFunctions:
    """The functions that make up the gradient of a batch, see :class:`Graphs`. They can be called eagerly."""

    sample_losses: Callable[..., list[tf.Tensor]]
    loss_scales: Callable[..., list[tf.Tensor]]
    penalty: Callable[..., list[tf.Tensor]]


class Graphs:
    """The pure functions of a run, ready to be inlined into other graphs: its attribute ``functions``.

    - ``forward(*params, *state, *inputs) -> [*outputs]``, in inference mode.
    - ``sample_losses(*params, *state, *inputs, *targets, *weights, scales) -> [losses, *new_state]``, in training mode.
      It returns what each sample adds to Keras' loss of the batch, given the scales of the L compiled losses, shape (L,).
    - ``token_losses``, with the same arguments ``-> [losses]``: the losses of positions, shape (batch, positions). It is
      None if the losses have no values for positions. ``token_count`` is the number of positions, None if it may differ.
    - ``loss_scales(*params, *state, *inputs, *targets, *weights) -> [scales]`` of a whole batch.
    - ``penalty(*params, *state, *inputs) -> [scalar]``, in training mode: the sum of ``model.losses``.

    All arguments are flat lists of tensors. Each call copies the function's nodes into the graph that is
    being built. Symbolic differentiation then sees plain operations, and can be repeated as often as needed. Forward
    mode through a *call* of a loaded function fails in TensorFlow 2.21 if a gradient is sparse (embeddings).

    Parameters
    ----------
    path : Path
        The SavedModel directory. It is executed as a TensorFlow graph; no Python is loaded from it.
    trust : bool
        Whether operations that are not allowed are accepted. See :func:`load_checked`.
    """

    def __init__(self, path: Path, *, trust: bool = False) -> None:
        self._module = _loaded(path, (FORWARD, SAMPLE_LOSSES, LOSS_SCALES, PENALTY), trust)
        try:
            self._take_functions()
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise RunFormatError(
                f"{path} holds functions of another form than a PathLogger writes: {error}. Restore it from a copy."
            ) from error

    def _take_functions(self) -> None:
        forward = self._function(FORWARD)
        names = (FORWARD, SAMPLE_LOSSES, TOKEN_LOSSES, LOSS_SCALES, PENALTY)
        self.signatures = {
            name: Signature.of(self._function(name)) for name in names if hasattr(self._module, name)
        }
        tokens = self._function(TOKEN_LOSSES) if hasattr(self._module, TOKEN_LOSSES) else None
        self.token_count = None if tokens is None else tokens.outputs[0].shape[1]
        gradients = {
            name: InlinedFunction.of(saved_function(function))
            for name, function in getattr(self._module, CUSTOM_GRADIENTS, {}).items()
        }
        self.functions = RunFunctions(
            forward=InlinedFunction.of(forward).seen_through(),
            sample_losses=InlinedFunction.of(self._function(SAMPLE_LOSSES), gradients),
            token_losses=None if tokens is None else InlinedFunction.of(tokens, gradients),
            loss_scales=InlinedFunction.of(self._function(LOSS_SCALES)),
            penalty=InlinedFunction.of(self._function(PENALTY), gradients),
        )
        self.forward_bytes_per_input = _float_bytes_per_row(forward)

    def loss_functions(self) -> LossFunctions:
        """Return the loss functions in a form that can be called outside of a graph."""
        own = self.functions
        functions = (own.sample_losses, own.loss_scales, own.penalty)
        return LossFunctions(*(tf.function(function, autograph=False) for function in functions))

    def _function(self, name: str) -> Any:
        return saved_function(getattr(self._module, name))


class ForwardGraph:
    """Only the forward pass, of checkpoints or of a run without losses. Otherwise it is used like :class:`Graphs`.

    Parameters
    ----------
    forward : tf.types.experimental.ConcreteFunction
        ``(*params, *state, *inputs) -> [*outputs]``, in inference mode.
    """

    token_count: int | None = None

    def __init__(self, forward: Any) -> None:
        self.signatures = {FORWARD: Signature.of(forward)}
        self.functions = RunFunctions(InlinedFunction.of(forward).seen_through())
        self.forward_bytes_per_input = _float_bytes_per_row(forward)

    @classmethod
    def load(cls, path: Path, *, trust: bool = False) -> "ForwardGraph":
        """Return the forward pass of a SavedModel directory.

        Raises
        ------
        RunFormatError
            If the directory does not hold one.
        """
        module = _loaded(path, (FORWARD,), trust)
        if hasattr(module, SAMPLE_LOSSES):
            raise RunFormatError(
                f"{path} holds losses of samples, but the manifest says that this run has none. Restore both from a copy."
            )
        try:
            return cls(saved_function(module.forward))
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise RunFormatError(
                f"{path} holds functions of another form than a PathLogger writes: {error}. Restore it from a copy."
            ) from error


def saved_function(attribute: Any) -> Any:
    """Return the concrete function that an attribute of a SavedModel stands for.

    Before version 10 of the run format, it was the only one of a ``tf.function``.
    """
    return getattr(attribute, "concrete_functions", [attribute])[0]


def _loaded(path: Path, names: tuple[str, ...], trust: bool) -> Any:
    try:
        module: Any = load_checked(path, trust=trust)
    except RunFormatError:
        raise
    except Exception as error:  # TensorFlow raises many kinds of errors for a file that is no SavedModel
        raise RunFormatError(
            f"{path} cannot be loaded as a SavedModel: {error}. Restore it from a copy."
        ) from error
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise RunFormatError(
            f"{path} lacks the functions {missing}, which a PathLogger always writes. Restore it from a copy."
        )
    return module


def _float_bytes_per_row(concrete: Any) -> int:
    """Return an estimate of the bytes of all intermediate float tensors for one row of the batch.

    A tensor is taken to have rows if its leading dimension has unknown size. The estimate serves only to choose batch
    sizes.
    """
    total = 0
    for operation in concrete.graph.get_operations():
        for tensor in operation.outputs:
            shape = tensor.shape
            if tensor.dtype.is_floating and shape.rank and shape[0] is None:
                rest = shape[1:].num_elements()
                total += (rest or 0) * tensor.dtype.size
    return total
