"""Contraction of rows Ψ with the gradients of a training batch, whole or part by part.

A *partition* cuts the flat weights into parts (layers), each made of whole variables: for each part a list of
``(start, stop)``.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.functions import Batch, PureModel
from explaind_tf.kernel.operations.rule import scalar_products

Partition = Sequence[Sequence[tuple[int, int]]]
Route = Literal["rules", "loop", "jvp", "token_jvp"]

# Gradients of single samples held at once.
CHUNK_BYTES = 256 * 2**20
# A product with few vectors waits for memory: where a chunk has fewer than these, it may be so many times as large.
_ENOUGH = 128
STRETCH = 3


def contract(
    loss: LossDerivatives,
    point: np.ndarray | tf.Tensor,
    constants: list[np.ndarray],
    batch: Batch,
    rows: tf.Tensor,
    partition: Partition,
    route: Route,
    chunk_bytes: int = CHUNK_BYTES,
) -> np.ndarray:
    """Return ⟨Ψ, ∇ℓ_k⟩, ℓ_k scaled and weighted, for each row, sample and part of the weights.

    Parameters
    ----------
    rows : tf.Tensor
        Ψ, shape (F, D).
    partition : Partition
        P parts.
    route : {"rules", "loop", "jvp", "token_jvp"}
        ``"rules"``: one backward pass for all samples, then a product at each use of a variable;
        ``"loop"``: a backward pass for each sample, then one matrix product for all rows;
        ``"jvp"``: one derivative of the batch's losses a row and part, right for coupled samples;
        ``"token_jvp"``: the same for the losses of positions.
    chunk_bytes : int
        Bytes that gradients of single samples may take at once; ``STRETCH`` times as many where it is for few of them.

    Returns
    -------
    np.ndarray
        Shape (F, batch, P), or (F, batch, positions, P) by ``"token_jvp"``, float64.
    """
    if route in ("jvp", "token_jvp"):
        jvp = loss.jvp if route == "jvp" else loss.token_jvp
        padding = [[0, 0], [0, loss.model.point_size - loss.model.theta_size]]
        masked = (_masked(rows, part) for part in partition)
        parts = [jvp(point, constants, batch, tf.pad(directions, padding)) for directions in masked]
        return tf.stack(parts, axis=-1).numpy().astype(np.float64)
    pieces = []
    bytes_per_sample = _bytes_per_sample(loss, route)
    enough = min(_ENOUGH * bytes_per_sample, STRETCH * chunk_bytes)
    for part in _chunks(bytes_per_sample, batch, max(chunk_bytes, enough)):
        if route == "rules":
            by_variable = loss.contract(point, constants, batch.part(*part), rows)
            pieces.append(sum_by_part(by_variable.numpy(), loss.model, partition))
        else:
            gradients = loss.sample_gradients(point, constants, batch.part(*part), by_rule=False)
            products = [_product_by_part(rows, gradients, slices) for slices in partition]
            pieces.append(tf.stack(products, axis=-1).numpy().astype(np.float64))
    return np.concatenate(pieces, axis=1)


def within(partition: Partition, size: int) -> Partition:
    """Return the partition of the first ``size`` elements."""
    return [[(a, min(b, size)) for a, b in part if a < size] for part in partition]


def sum_by_part(by_variable: np.ndarray, model: PureModel, partition: Partition) -> np.ndarray:
    """Return (..., P) of (..., V), the first V variables, summed in float64."""
    starts = np.cumsum([0, *model.sizes])[: by_variable.shape[-1]]
    member = np.array(
        [[any(a <= s < b for a, b in slices) for slices in partition] for s in starts], np.float64
    )
    return by_variable.astype(np.float64) @ member


def _product_by_part(rows: tf.Tensor, gradients: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    if not part:  # a layer that owns state and no weights
        return tf.zeros((rows.shape[0], gradients.shape[0]), rows.dtype)
    return tf.add_n([scalar_products(rows[:, a:b], gradients[:, a:b]) for a, b in part])


def _masked(rows: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    mask = np.zeros(rows.shape[1], bool)
    for start, stop in part:
        mask[start:stop] = True
    return rows if mask.all() else tf.where(mask, rows, tf.zeros_like(rows))


def gradient_chunks(
    loss: LossDerivatives,
    point: np.ndarray | tf.Tensor,
    constants: list[np.ndarray],
    batch: Batch,
    route: Route,
    chunk_bytes: int = CHUNK_BYTES,
) -> Iterator[tuple[slice, tf.Tensor]]:
    """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D)).

    By ``"jvp"``, the route for coupled samples, all at once: each within its batch.
    """
    if route == "jvp":
        yield slice(0, len(batch)), loss.coupled_gradients(point, constants, batch)
        return
    bytes_per_sample = loss.model.theta_size * loss.model.dtype.size
    for start, stop in _chunks(bytes_per_sample, batch, chunk_bytes):
        part = batch.part(start, stop)
        gradients = loss.sample_gradients(point, constants, part, by_rule=route == "rules")
        yield slice(start, stop), gradients


def _bytes_per_sample(loss: LossDerivatives, route: Route) -> int:
    """Return what a sample takes in a contraction: its gradient, but by rules that of two variables at most at once."""
    model = loss.model
    variables = sorted(model.sizes[: len(model.trained)])
    return model.dtype.size * sum(variables[-2:] if route == "rules" else variables)


def _chunks(bytes_per_sample: int, batch: Batch, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield chunks of about equal size."""
    most = max(1, chunk_bytes // bytes_per_sample)
    count = -(-len(batch) // most)
    yield from itertools.pairwise(np.linspace(0, len(batch), count + 1).round().astype(int).tolist())
