"""The compiled loss of a Keras model, taken apart into values of single samples and factors of the reduction."""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf
from keras.src.losses.loss import squeeze_or_expand_to_same_rank
from keras.src.trainers.compile_utils import CompileLoss

from explaind_tf.errors import RefusedError
from explaind_tf.replicas import replica_count, rounded_average

_AVERAGES = ("sum_over_batch_size", "mean")
_REDUCTIONS = (*_AVERAGES, "sum", "mean_with_sample_weight")


@dataclass(frozen=True)
class LossPart:
    """One loss of a compiled model for one batch. It adds ``scale · Σ values`` to Keras' total.

    Attributes
    ----------
    name, reduction : str
        Keras' names of the loss and its reduction.
    values : tf.Tensor
        Weighted and masked losses, shape (batch, ...): one per position if a sample has several.
    scale : tf.Tensor
        A scalar with all factors that depend on the batch as a whole: Keras' divisor, the rescaling of
        masked means, and the loss weight.
    """

    name: str
    reduction: str
    values: tf.Tensor
    scale: tf.Tensor

    @property
    def of_samples(self) -> tf.Tensor:
        """Values summed per sample, shape (batch,)."""
        return tf.reduce_sum(self.values, axis=list(range(1, self.values.shape.rank)))

    @property
    def of_tokens(self) -> tf.Tensor:
        """Values per position, in order, shape (batch, positions)."""
        known = self.values.shape[1:].num_elements()
        return tf.reshape(self.values, (tf.shape(self.values)[0], -1 if known is None else known))


def have_tokens(terms: list[LossPart]) -> bool:
    """Return whether a sample has several values, for the same positions in all losses."""
    shapes = [term.values.shape[1:] for term in terms]
    if shapes[0].num_elements() == 1:  # as with one weight per sample, given as (batch, 1)
        return False
    # If shapes are not known yet, some batch may have different ones.
    return len(terms) == 1 or all(s.is_fully_defined() and s == shapes[0] for s in shapes)


class _OpenedLoss(CompileLoss):
    """Keras' own matching of losses with outputs, targets and weights, which notes what is matched.

    Each loss is replaced by a function that notes its arguments and returns a unit vector. The "total" then holds the
    factor with which Keras counts each loss (zero for all but the first of several losses on one output).
    """

    def __init__(self, compiled: CompileLoss) -> None:
        super().__init__(compiled._user_loss, compiled._user_loss_weights, output_names=compiled.output_names)
        self._flat_losses: list[Any] = []
        self._entries: list[Any] = []
        self.noted: list[tuple[Any, Any, Any, Any]] = []

    def build(self, y_true: Any, y_pred: Any) -> None:
        super().build(y_true, y_pred)
        count = len(self._entries)
        self._flat_losses = [
            entry._replace(loss=self._noting(entry, tf.one_hot(i, count, dtype=self.dtype)))
            for i, entry in enumerate(self._entries)
        ]
        # Keras pairs losses with metrics of their values, which are not needed here.
        self._metrics = [None] * count

    def _build_nested(self, *arguments: Any) -> None:
        super()._build_nested(*arguments)
        # Hidden from build(), which would make a metric, and so variables, for each of several losses.
        self._entries += self._flat_losses
        self._flat_losses = []

    def _noting(self, entry: Any, unit: tf.Tensor) -> Any:
        def note(y_true: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
            self.noted.append((entry, y_true, y_pred, sample_weight))
            return unit

        return note


def loss_parts(
    model: keras.Model, y_true: Any, y_pred: Any, sample_weight: Any, batch_size: tf.Tensor
) -> list[LossPart]:
    """Return the losses with which the model was compiled, for one batch.

    Parameters
    ----------
    y_true, y_pred, sample_weight
        Nested as Keras' trainer gets them. ``sample_weight`` may be None.
    batch_size : tf.Tensor
        A scalar that does not depend on the predictions. The scales then need no forward pass.

    Raises
    ------
    RefusedError
        If there is no loss, or a loss that cannot be split over samples.
    """
    compiled = model._compile_loss  # the only place where Keras keeps what compile() was given
    opened = None if compiled is None else _OpenedLoss(compiled)
    factors = None if opened is None else opened.call(y_true, y_pred, sample_weight)
    if opened is None or factors is None:
        raise RefusedError(
            "The model was compiled without a loss. The ledger needs a loss that it can split over samples: pass "
            "`loss=` to compile(). A loss computed in train_step or by add_loss cannot be split."
        )
    return [
        _term(*noted, factor=factor, batch_size=batch_size, replicas=replica_count(model))
        for noted, factor in zip(opened.noted, tf.unstack(factors, len(opened.noted)), strict=True)
    ]


def _term(
    entry: Any,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any,
    *,
    factor: tf.Tensor,
    batch_size: tf.Tensor,
    replicas: int,
) -> LossPart:
    """Follow ``keras/src/losses/loss.py`` up to the reduction over the batch."""
    loss = entry.loss
    _refuse_other_reductions(loss)
    to_dtype = _converter(loss.dtype)
    mask = _mask_of(y_pred)
    static_batch = keras.tree.flatten(y_pred)[0].shape[0]
    y_true, y_pred = (keras.tree.map_structure(to_dtype, value) for value in (y_true, y_pred))
    values = loss.call(y_true, y_pred)
    own_mask = _mask_of(values)
    mask = (
        mask & own_mask if mask is not None and own_mask is not None else own_mask if mask is None else mask
    )
    values = to_dtype(values)
    _refuse_batch_values(loss, values, static_batch)

    weight = None if sample_weight is None else to_dtype(sample_weight)
    rescale = None
    if mask is not None:
        mask = to_dtype(mask)
        if loss.reduction in _AVERAGES:
            rescale = tf.math.divide_no_nan(_count(mask, batch_size), tf.reduce_sum(mask))
        weight = mask if weight is None else _product(loss, *squeeze_or_expand_to_same_rank(mask, weight))
    if weight is not None:
        values, weight = squeeze_or_expand_to_same_rank(values, weight)
        values = _product(loss, values, weight)

    scale = tf.cast(factor, values.dtype)
    if loss.reduction == "mean_with_sample_weight" and weight is not None:
        scale = tf.math.divide_no_nan(scale, tf.reduce_sum(weight))
    elif loss.reduction != "sum":
        scale = tf.math.divide_no_nan(scale, _count(values, batch_size))
    if rescale is not None:
        scale = scale * rescale
    if replicas > 1:
        # The gradients of replicas are averaged in the record. Keras adds up those of sums.
        scale = scale * (replicas if loss.reduction == "sum" else rounded_average(replicas))
    return LossPart(entry.name, loss.reduction, values, scale)


def _converter(dtype: str) -> Any:
    return lambda value: tf.convert_to_tensor(keras.ops.convert_to_tensor(value, dtype=dtype))


def _mask_of(value: Any) -> tf.Tensor | None:
    return getattr(value, "_keras_mask", None)


def _count(values: tf.Tensor, batch_size: tf.Tensor) -> tf.Tensor:
    """Return the number of elements, without reading the values if their shape is known."""
    per_sample = values.shape[1:].num_elements()
    if per_sample is None or values.shape[0] is not None:
        return tf.cast(tf.size(values), values.dtype)
    return tf.cast(batch_size * per_sample, values.dtype)


def _product(loss: keras.losses.Loss, values: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    if values.shape.rank != weight.shape.rank:
        raise RefusedError(
            f"The loss {loss.name!r} has values (or a mask) of shape {values.shape} and weights of shape {weight.shape}. "
            f"Keras multiplies them along their last axes, and would apply weights of samples to positions within "
            f"samples. Give weights with as many axes as the values: (batch, 1) for one weight per sample, "
            f"(batch, positions) for one weight per position."
        )
    return values * weight


def _refuse_other_reductions(loss: keras.losses.Loss) -> None:
    if type(loss).__call__ is not keras.losses.Loss.__call__:
        raise RefusedError(
            f"The loss {loss.name!r} ({type(loss).__name__}) overrides __call__, so Keras' own reduction over samples is "
            f"not used. Override call(y_true, y_pred) instead, and return values of shape (batch,)."
        )
    if loss.reduction not in _REDUCTIONS:
        raise RefusedError(
            f"The loss {loss.name!r} has reduction={loss.reduction!r}, for which Keras differentiates an "
            f"unreduced vector. The ledger needs a scalar loss. Use one of {sorted(_REDUCTIONS)}."
        )


def _refuse_batch_values(loss: keras.losses.Loss, values: tf.Tensor, static_batch: int | None) -> None:
    if not values.shape.rank or (values.shape[0] is not None and static_batch is None):
        raise RefusedError(
            f"The loss {loss.name!r} returns a value of shape {values.shape} for a batch, not one for "
            f"each sample, so it cannot be split over the training samples. Return per-sample values of "
            f"shape (batch,), as keras.losses do, and leave the reduction to Keras. For example, write "
            f"`lambda y, p: keras.ops.mean((y - p) ** 2, axis=-1)` instead of a mean over everything."
        )
