"""Contraction of rows Ψ with the gradients of a training batch, whole or part by part.

A *partition* cuts the flat weights into parts (layers): for each part a list of ``(start, stop)``.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives import Derivatives
from explaind_tf.kernel.functions import Batch

Partition = Sequence[Sequence[tuple[int, int]]]
Route = Literal["jvp", "token_jvp", "gradients"]

# Per-example gradients held at once.
_CHUNK_BYTES = 256 * 2**20


def samples_are_coupled(
    derivatives: Derivatives, point: np.ndarray, constants: list[np.ndarray], batch: Batch
) -> bool:
    """Tell whether a sample's loss depends on the rest of its batch, or on its place in it.

    It does with BatchNorm in training mode and with dropout, whatever the layers are called: the losses of
    single samples are compared with those in the batch.
    """
    together = derivatives.losses(point, constants, batch).numpy()
    # Samples of weight zero, or masked, tell nothing.
    positions = sorted({0, len(batch) - 1, *np.argsort(np.abs(together))[-2:].tolist()})
    alone = np.array(
        [derivatives.losses(point, constants, batch.part(k, k + 1)).numpy()[0] for k in positions]
    )
    scale = max(float(np.max(np.abs(together))), 1e-30)
    return bool(np.max(np.abs(alone - together[positions])) > np.sqrt(np.finfo(alone.dtype).eps) * scale)


def contract(
    derivatives: Derivatives,
    point: np.ndarray,
    constants: list[np.ndarray],
    batch: Batch,
    rows: tf.Tensor,
    partition: Partition,
    route: Route,
) -> np.ndarray:
    """Return ⟨Ψ, ∇ℓ_k⟩, ℓ_k scaled and weighted, for each row, sample and part of the weights.

    Parameters
    ----------
    rows : tf.Tensor
        Ψ, shape (F, D).
    partition : Partition
        P parts.
    route : {"jvp", "token_jvp", "gradients"}
        ``"jvp"``: one derivative of the batch's losses a row and part, right for coupled samples;
        ``"token_jvp"``: the same for the losses of positions;
        ``"gradients"``: per-example gradients once, then one matrix product for all rows.

    Returns
    -------
    np.ndarray
        Shape (F, batch, P), or (F, batch, positions, P) by ``"token_jvp"``, float64.
    """
    if route != "gradients":
        jvp = derivatives.loss_jvp if route == "jvp" else derivatives.token_jvp
        padding = [[0, 0], [0, derivatives.model.point_size - derivatives.model.theta_size]]
        masked = (_masked(rows, part) for part in partition)
        parts = [jvp(point, constants, batch, tf.pad(directions, padding)) for directions in masked]
        return tf.stack(parts, axis=-1).numpy().astype(np.float64)
    pieces = []
    for _, gradients in gradient_chunks(derivatives, point, constants, batch, coupled=False):
        parts = [_product_by_part(rows, gradients, part) for part in partition]
        pieces.append(tf.stack(parts, axis=-1).numpy().astype(np.float64))
    return np.concatenate(pieces, axis=1)


def _product_by_part(rows: tf.Tensor, gradients: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    if not part:  # a layer that owns state and no weights
        return tf.zeros((rows.shape[0], gradients.shape[0]), rows.dtype)
    return tf.add_n([tf.matmul(rows[:, a:b], gradients[:, a:b], transpose_b=True) for a, b in part])


def _masked(rows: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    mask = np.zeros(rows.shape[1], bool)
    for start, stop in part:
        mask[start:stop] = True
    return rows if mask.all() else tf.where(mask, rows, tf.zeros_like(rows))


def gradient_chunks(
    derivatives: Derivatives,
    point: np.ndarray,
    constants: list[np.ndarray],
    batch: Batch,
    *,
    coupled: bool,
) -> Iterator[tuple[slice, tf.Tensor]]:
    """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D))."""
    if coupled:
        yield slice(0, len(batch)), derivatives.coupled_gradients(point, constants, batch)
        return
    bytes_per_sample = derivatives.model.theta_size * derivatives.model.dtype.size
    chunk = max(1, _CHUNK_BYTES // bytes_per_sample)
    for start in range(0, len(batch), chunk):
        stop = min(start + chunk, len(batch))
        yield slice(start, stop), derivatives.sample_gradients(point, constants, batch.part(start, stop))
