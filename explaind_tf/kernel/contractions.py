"""Contraction of rows Ψ with the gradients of a training batch, whole or part by part, by one of several routes.

A *partition* cuts the flat weights into parts (layers), each made of whole variables: for each part a list of
``(start, stop)``.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.functions import Batch, BatchPoint, PureModel
from explaind_tf.kernel.operations.rules import scalar_products

Partition = Sequence[Sequence[tuple[int, int]]]

# Gradients of single samples held at once.
CHUNK_BYTES = 256 * 2**20
# A product with few vectors waits for memory: where a chunk has fewer than these, it may be so many times as large.
_ENOUGH = 128
STRETCH = 3


class Route(Protocol):
    """How a batch is contracted with rows. All routes find the same, where they are right.

    Attributes
    ----------
    name : str
        In the ledger's ``attrs["method"]``.
    """

    name: ClassVar[str]

    def contract(
        self,
        loss: LossDerivatives,
        at: BatchPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩, ℓ_k scaled and weighted, for each row, sample and part of the weights.

        Parameters
        ----------
        loss : LossDerivatives
            Of the model.
        at : BatchPoint
            The samples, and where the weights are.
        rows : tf.Tensor
            Ψ, shape (F, D).
        partition : Partition
            P parts.
        chunk_bytes : int
            Bytes that gradients of single samples may take at once; ``STRETCH`` times as many where it is for few of
            them.

        Returns
        -------
        np.ndarray
            Shape (F, batch, P), or (F, batch, positions, P) where positions are told apart, float64.
        """
        ...

    def gradient_chunks(
        self, loss: LossDerivatives, at: BatchPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D))."""
        ...


@dataclass(frozen=True)
class ByRules:
    """One backward pass for all samples, then a product at each use of a variable."""

    name: ClassVar[str] = "rules"

    def contract(
        self,
        loss: LossDerivatives,
        at: BatchPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩, shape (F, batch, P)."""
        # Gradients of two variables at most are held at once.
        bytes_per_sample = loss.model.dtype.size * sum(_variable_sizes(loss)[-2:])
        pieces = []
        for part in _stretched_chunks(bytes_per_sample, at.batch, chunk_bytes):
            by_variable = loss.contract(at.point, at.constants, at.batch.part(*part), rows)
            pieces.append(sum_by_part(by_variable.numpy(), loss.model, partition))
        return np.concatenate(pieces, axis=1)

    def gradient_chunks(
        self, loss: LossDerivatives, at: BatchPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D))."""
        return _gradient_chunks(loss, at, chunk_bytes, by_rule=True)


@dataclass(frozen=True)
class ByLoop:
    """A backward pass for each sample, then one matrix product for all rows."""

    name: ClassVar[str] = "loop"

    def contract(
        self,
        loss: LossDerivatives,
        at: BatchPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩, shape (F, batch, P)."""
        bytes_per_sample = loss.model.dtype.size * sum(_variable_sizes(loss))
        pieces = []
        for part in _stretched_chunks(bytes_per_sample, at.batch, chunk_bytes):
            gradients = loss.sample_gradients(at.point, at.constants, at.batch.part(*part), by_rule=False)
            products = [_product_by_part(rows, gradients, slices) for slices in partition]
            pieces.append(tf.stack(products, axis=-1).numpy().astype(np.float64))
        return np.concatenate(pieces, axis=1)

    def gradient_chunks(
        self, loss: LossDerivatives, at: BatchPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D))."""
        return _gradient_chunks(loss, at, chunk_bytes, by_rule=False)


@dataclass(frozen=True)
class ByJvp:
    """One derivative of the batch's losses a row and part: right for samples that depend on their batch."""

    name: ClassVar[str] = "jvp"

    def contract(
        self,
        loss: LossDerivatives,
        at: BatchPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩, shape (F, batch, P)."""
        parts = [loss.jvp(*at, directions) for directions in _directions(loss, rows, partition)]
        return tf.stack(parts, axis=-1).numpy().astype(np.float64)

    def gradient_chunks(
        self, loss: LossDerivatives, at: BatchPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Yield the gradients of all samples at once, each within its batch: (positions, (batch, D))."""
        yield slice(0, len(at.batch)), loss.coupled_gradients(*at)


@dataclass(frozen=True)
class ByTokenJvp:
    """The same for the losses of positions."""

    name: ClassVar[str] = "token_jvp"

    def contract(
        self,
        loss: LossDerivatives,
        at: BatchPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩ for each position of a sample, shape (F, batch, positions, P)."""
        parts = [loss.token_jvp(*at, directions) for directions in _directions(loss, rows, partition)]
        return tf.stack(parts, axis=-1).numpy().astype(np.float64)

    def gradient_chunks(
        self, loss: LossDerivatives, at: BatchPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Refuse: no gradient of a single position is ever computed."""
        raise NotImplementedError("weights and tokens are not asked for together")


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


def _directions(loss: LossDerivatives, rows: tf.Tensor, partition: Partition) -> Iterator[tf.Tensor]:
    """Yield rows restricted to each part, as directions of the point, shape (F, Z)."""
    padding = [[0, 0], [0, loss.model.point_size - loss.model.theta_size]]
    return (tf.pad(_masked(rows, part), padding) for part in partition)


def _variable_sizes(loss: LossDerivatives) -> list[int]:
    return sorted(loss.model.sizes[: len(loss.model.trained)])


def _gradient_chunks(
    loss: LossDerivatives, at: BatchPoint, chunk_bytes: int, *, by_rule: bool
) -> Iterator[tuple[slice, tf.Tensor]]:
    bytes_per_sample = loss.model.theta_size * loss.model.dtype.size
    for start, stop in _chunks(bytes_per_sample, at.batch, chunk_bytes):
        part = at.batch.part(start, stop)
        yield slice(start, stop), loss.sample_gradients(at.point, at.constants, part, by_rule=by_rule)


def _stretched_chunks(bytes_per_sample: int, batch: Batch, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield chunks for a product, which are larger where they would hold few samples."""
    enough = min(_ENOUGH * bytes_per_sample, STRETCH * chunk_bytes)
    return _chunks(bytes_per_sample, batch, max(chunk_bytes, enough))


def _chunks(bytes_per_sample: int, batch: Batch, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield chunks of about equal size."""
    most = max(1, chunk_bytes // bytes_per_sample)
    count = -(-len(batch) // most)
    yield from itertools.pairwise(np.linspace(0, len(batch), count + 1).round().astype(int).tolist())
