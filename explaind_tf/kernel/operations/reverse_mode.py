"""Reverse mode in graphs, with the derivatives that TensorFlow lacks or has wrong.

A JVP is the derivative of a gradient (:mod:`explaind_tf.kernel.derivatives.compiled`). For some operations TensorFlow 2.21
has a gradient, but none of that gradient: ``SoftsignGrad``, say. Of others the second one is wrong: that of
``ResizeBilinearGrad`` is zero. They are given one here, operation by operation, in our graphs alone. TensorFlow's registry
stays as it is.

A few operations have no gradient at all, ``Lu`` for instance. They are given one, too. No training can have used another.
Operations whose gradient TensorFlow takes to be zero keep it: the gradients of a loss must be those that training used.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf

# TensorFlow has no public API for this.
from tensorflow.python.framework.ops import get_gradient_function, gradient_registry

# Where TensorFlow keeps the graphs of loops and branches, whose gradients it builds from them.
_BRANCHES = ("_true_graph", "_false_graph")
_INNER = {
    "While": ("_body_graph",),
    "StatelessWhile": ("_body_graph",),
    "If": _BRANCHES,
    "StatelessIf": _BRANCHES,
}

# Operations that are the identity: one stops derivatives, the other may have a gradient of its own. PreventGradient is not
# among them. TensorFlow puts it where a gradient has no derivative that it knows, and an error is raised there.
_STOP = "StopGradient"
_IDENTITIES = (_STOP, "IdentityN")

Gradient = Callable[..., Sequence[tf.Tensor | None]]


@dataclass
class _Seen:
    """How many operations of a graph have their gradients, and the names of those with a graph of their own."""

    count: int = 0
    with_inner_graph: list[str] = field(default_factory=list)


_SEEN: WeakKeyDictionary[tf.Graph, _Seen] = WeakKeyDictionary()


def gradients(outputs: Any, inputs: Sequence[tf.Tensor], upstream: Any = None) -> list[tf.Tensor | None]:
    """Return ``tf.gradients(outputs, inputs, upstream)``, None for inputs without influence."""
    # Within a loop, what is differentiated may be in the graph around it.
    for graph in {tf.compat.v1.get_default_graph(), *(output.graph for output in tf.nest.flatten(outputs))}:
        _give_gradients_in(graph)
    found: list[tf.Tensor | None] = tf.gradients(outputs, inputs, grad_ys=upstream)
    return found


def differentiate_as_computed(graph: tf.Graph) -> None:
    """Let derivatives from now on pass operations that are the identity, whatever they told the first derivative.

    A loss is differentiated as training was told: nothing passes ``stop_gradient``, and custom gradients are obeyed. How
    this gradient depends on the weights is another question. It is a function that was computed, and what a stop passed on
    is a part of it. The variance in ``tf.nn.moments``, for one, stops the gradient of the mean, since the first derivative
    by it is zero. The second is not.

    Raises
    ------
    LookupError
        If a loop or branch of the graph has such an operation. There it cannot be passed.
    """
    for operation in graph.get_operations():
        if operation.type in _IDENTITIES:
            operation._gradient_function = lambda _, *upstream: list(upstream)
    for function in graph.as_graph_def().library.function:
        for node in function.node_def:
            if node.op == _STOP:
                raise LookupError(
                    f"{node.name} ({node.op}) is within a loop or branch, {function.signature.name}."
                )


def has_gradient(operation_type: str) -> bool:
    """Return whether operations of a type have a gradient of TensorFlow's or of ours, be it zero."""
    if operation_type in _GRADIENTS:
        return True
    try:
        gradient_registry.lookup(operation_type)
    except LookupError:
        return False
    return True


def operation_jvp(operation: tf.Operation, tangents: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Return the derivative of one operation alone, as :func:`gradients` takes it: a VJP of its VJP.

    Parameters
    ----------
    operation : tf.Operation
        An operation of the graph that is being built.
    tangents : sequence of tf.Tensor or None
        How each of its inputs moves, None for one that does not.

    Returns
    -------
    list of tf.Tensor or None
        How each of its outputs moves, None for one that does not.
    """
    graph = operation.graph
    _give_gradient(operation)
    _give_inner_gradients(operation)
    own = get_gradient_function(operation)
    if own is None:
        return [None] * len(operation.outputs)
    dummies = [tf.zeros_like(made) if moves(made.dtype) else None for made in operation.outputs]
    found = own(operation, *dummies)
    pulled = [found] if tf.is_tensor(found) else list(found)
    pairs = [
        (tf.convert_to_tensor(gradient), tangent)
        for gradient, tangent in zip(pulled[: len(tangents)], tangents, strict=True)
        if gradient is not None and tangent is not None
    ]
    if not pairs:
        return [None] * len(operation.outputs)
    _give_gradients_in(graph)
    products = iter(
        tf.gradients(
            [gradient for gradient, _ in pairs],
            [dummy for dummy in dummies if dummy is not None],
            [tangent for _, tangent in pairs],
        )
    )
    return [None if dummy is None else next(products) for dummy in dummies]


def moves(dtype: tf.DType) -> bool:
    """Return whether numbers of a type have derivatives."""
    return bool(dtype.is_floating or dtype.is_complex)


def has_symbolic_gradient(graph: tf.Graph) -> bool:
    """Return whether a graph has gradients of called functions that TensorFlow's runtime makes.

    They know other rules than those of Python. In TensorFlow 2.21 that of a loaded CTC loss is zero.
    """
    definition = graph.as_graph_def()
    functions = (function.node_def for function in definition.library.function)
    return any(node.op == "SymbolicGradient" for nodes in (definition.node, *functions) for node in nodes)


def has_inner_graph(operation: tf.Operation) -> bool:
    """Return whether an operation is a loop or a branch."""
    return operation.type in _INNER


def _give_gradients_in(graph: tf.Graph) -> None:
    """Give the operations of a graph their gradients that were not there at the last call, also in loops and branches.

    A graph only grows, and may be differentiated a hundred times while it is built.
    """
    seen = _SEEN.setdefault(graph, _Seen())
    operations = graph.get_operations()
    for operation in operations[seen.count :]:
        _give_gradient(operation)
        if has_inner_graph(operation):
            seen.with_inner_graph.append(operation.name)
    seen.count = len(operations)
    for name in seen.with_inner_graph:
        _give_inner_gradients(graph.get_operation_by_name(name))


def _give_gradient(operation: tf.Operation) -> None:
    # An operation may have one already: that of its kink, or one that was recorded.
    if operation._gradient_function is None and operation.type in _GRADIENTS:
        operation._gradient_function = _GRADIENTS[operation.type]


def _give_inner_gradients(operation: tf.Operation) -> None:
    """Give gradients within the loops and branches that TensorFlow built in an operation."""
    for name in _INNER.get(operation.type, ()):
        inner = getattr(operation, name, None)  # only operations built in this process have one
        if inner is not None:
            _give_gradients_in(inner)


def _softsign_grad(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor]:
    """Of δ / (1 + |x|)² by δ and x."""
    delta, x = operation.inputs
    steeper = -2.0 * delta * tf.sign(x) / (1.0 + tf.abs(x)) ** 3
    return [tf.raw_ops.SoftsignGrad(gradients=upstream, features=x), upstream * steeper]


def _resize_grad(resize: Callable[..., tf.Tensor]) -> Gradient:
    """Of the transpose of a resize by what it is applied to: the resize itself."""

    def gradient(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
        resized = resize(
            images=upstream,
            size=tf.shape(operation.inputs[0])[1:3],
            align_corners=operation.get_attr("align_corners"),
            half_pixel_centers=operation.get_attr("half_pixel_centers"),
        )
        return [resized, None]

    return gradient


def _scale_and_translate(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Of a resampling, whose result is in float32 whatever the type of the images. TensorFlow's takes float32 only."""
    images, _, scale, translation = operation.inputs
    spread = tf.raw_ops.ScaleAndTranslateGrad(
        grads=upstream,
        original_image=tf.cast(images, upstream.dtype),
        scale=scale,
        translation=translation,
        kernel_type=operation.get_attr("kernel_type").decode(),
        antialias=operation.get_attr("antialias"),
    )
    return [tf.cast(spread, images.dtype), None, None, None]


def _scale_and_translate_grad(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Of the transpose of a resampling by what it is applied to: the resampling itself."""
    delta, _, scale, translation = operation.inputs
    resampled = tf.raw_ops.ScaleAndTranslate(
        images=upstream,
        size=tf.shape(delta)[1:3],
        scale=scale,
        translation=translation,
        kernel_type=operation.get_attr("kernel_type").decode(),
        antialias=operation.get_attr("antialias"),
    )
    return [resampled, None, None, None]


def _lrn_grad(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Of the gradient of y_i = x_i n_i^−β with n_i = bias + α Σ_near x_j², by δ and by x; y follows from x."""
    delta, x, _ = operation.inputs
    radius, bias, alpha, beta = (
        operation.get_attr(name) for name in ("depth_radius", "bias", "alpha", "beta")
    )
    depth = tf.shape(x)[-1]
    width = tf.minimum(radius, depth - 1)
    near = tf.linalg.band_part(tf.ones((depth, depth), x.dtype), width, width)
    norm = bias + alpha * tf.linalg.matvec(near, x * x)
    crossed = tf.linalg.matvec(near, delta * x * norm ** (-beta - 1))
    gradient = delta * norm ** (-beta) - 2.0 * alpha * beta * x * crossed
    # Both are held as they are, since δ may depend on x.
    both = [delta, x]
    return [*tf.gradients(gradient, both, upstream, stop_gradients=both), None]


def _unique(operation: tf.Operation, upstream: tf.Tensor, _: tf.Tensor | None) -> list[tf.Tensor]:
    """Of the distinct elements: each is the first of its kind."""
    x, places = operation.inputs[0], operation.outputs[1]
    first = tf.math.unsorted_segment_min(tf.range(tf.size(x)), places, tf.size(operation.outputs[0]))
    return [tf.scatter_nd(first[:, None], upstream, tf.shape(x))]


def _lu(operation: tf.Operation, upstream: tf.Tensor, _: tf.Tensor | None) -> list[tf.Tensor]:
    """Of L and U in one matrix, for P A = L U: Aδ = Pᵀ L⁻ᵀ (tril(Lᵀ Lδ, −1) + triu(Uδ Uᵀ)) U⁻ᵀ."""
    packed, order = operation.outputs
    upper = tf.linalg.band_part(packed, 0, -1)
    lower = tf.linalg.set_diag(packed - upper, tf.ones_like(packed[..., 0]))
    of_upper = tf.linalg.band_part(upstream, 0, -1)
    left = tf.matmul(lower, upstream - of_upper, adjoint_a=True)
    right = tf.matmul(of_upper, upper, adjoint_b=True)
    middle = left - tf.linalg.band_part(left, 0, -1) + tf.linalg.band_part(right, 0, -1)
    of_right = tf.linalg.adjoint(tf.linalg.triangular_solve(upper, tf.linalg.adjoint(middle), lower=False))
    permuted = tf.linalg.triangular_solve(lower, of_right, adjoint=True)
    back = tf.argsort(order, axis=-1)
    return [tf.gather(permuted, back, axis=-2, batch_dims=len(order.shape) - 1)]


def _update_slice(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor | None]:
    """Of a tensor with a part replaced, by the tensor and by the part."""
    whole, part, start = operation.inputs
    room = tf.cast(tf.shape(whole) - tf.shape(part), start.dtype)
    start = tf.clip_by_value(start, 0, room)
    of_part = tf.slice(upstream, start, tf.cast(tf.shape(part), start.dtype))
    return [upstream - tf.pad(of_part, tf.stack([start, room - start], axis=1)), of_part, None]


def _bitcast(operation: tf.Operation, upstream: tf.Tensor) -> list[tf.Tensor]:
    """Of the same bits as numbers of the same type. As those of another type, they have no derivative."""
    if operation.inputs[0].dtype != operation.outputs[0].dtype:
        raise LookupError(
            f"{operation.name} reads the bits of a number as another type, which has no derivative."
        )
    return [upstream]


def _missing(operation: tf.Operation, *_: tf.Tensor | None) -> list[tf.Tensor]:
    """Of an operation whose derivative is not zero, though TensorFlow says so."""
    raise LookupError(
        f"TensorFlow takes the derivative of {operation.name} ({operation.type}) to be zero, which is wrong."
    )


_GRADIENTS: dict[str, Gradient] = {
    "SoftsignGrad": _softsign_grad,
    "ResizeBilinearGrad": _resize_grad(tf.raw_ops.ResizeBilinear),
    "ResizeBicubicGrad": _resize_grad(tf.raw_ops.ResizeBicubic),
    "ResizeNearestNeighborGrad": _resize_grad(tf.raw_ops.ResizeNearestNeighbor),
    "ScaleAndTranslateGrad": _scale_and_translate_grad,
    "LRNGrad": _lrn_grad,
    "SparseAddGrad": _missing,
    # These have no first derivative either, or not in all types.
    "ScaleAndTranslate": _scale_and_translate,
    "Bitcast": _bitcast,
    "Unique": _unique,
    "Lu": _lu,
    "XlaDynamicUpdateSlice": _update_slice,
}
