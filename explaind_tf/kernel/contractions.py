"""Contraction of rows Ψ with the gradients of a training batch, whole or part by part.

A *partition* cuts the flat weights into parts (layers) of whole variables. It has a list of ``(start, stop)`` for each
part. A *route* is one method to contract. ``ROUTES`` has all of them by name.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Protocol

import numpy as np
import tensorflow as tf

from explaind_tf.kernel.derivatives.loss import LossDerivatives
from explaind_tf.kernel.functions import Batch, PureModel, TrainingPoint
from explaind_tf.kernel.operations.rule import scalar_products

Partition = Sequence[Sequence[tuple[int, int]]]
Chunk = tuple[int, int]  # consecutive samples of a batch: the first one, and the one after the last
RouteName = Literal["rules", "loop", "calls", "jvp", "shares", "token_jvp"]

# Bytes that gradients of single samples may take at once.
CHUNK_BYTES = 256 * 2**20
# Small products are memory-bound: below this many vectors a chunk may grow, up to STRETCH times its size.
_ENOUGH = 128
STRETCH = 3


class Route(Protocol):
    """One method to contract rows with the gradients of a batch's losses ℓ_k, scaled and weighted."""

    name: ClassVar[RouteName]

    def contract(
        self,
        loss: LossDerivatives,
        at: TrainingPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        """Return ⟨Ψ, ∇ℓ_k⟩ for each row, sample and part of the weights.

        Parameters
        ----------
        loss : LossDerivatives
            Derivatives of the model's losses.
        at : TrainingPoint
            The batch, and the point at which it was used.
        rows : tf.Tensor
            Ψ, shape (F, D).
        partition : Partition
            P parts.
        chunk_bytes : int
            Bytes that gradients of single samples may take at once. Chunks of few samples may take up to ``STRETCH``
            times as many.

        Returns
        -------
        np.ndarray
            Shape (F, batch, P), or (F, batch, positions, P) for ``"token_jvp"``, float64.
        """
        ...

    def gradient_chunks(
        self, loss: LossDerivatives, at: TrainingPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        """Yield the samples' gradients in chunks of bounded size: (positions in the batch, (chunk, D))."""
        ...


class _InChunks(ABC):
    """Contracts one chunk of samples at a time, by their gradients unless a route says otherwise."""

    def contract(
        self,
        loss: LossDerivatives,
        at: TrainingPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        bytes_per_sample = self._bytes_per_sample(loss.model)
        enough = min(_ENOUGH * bytes_per_sample, STRETCH * chunk_bytes)
        chunks = _chunks(bytes_per_sample, at.batch, max(chunk_bytes, enough))
        pieces = [self._contract_chunk(loss, at, chunk, rows, partition) for chunk in chunks]
        return np.concatenate(pieces, axis=1)

    def gradient_chunks(
        self, loss: LossDerivatives, at: TrainingPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        for chunk in _chunks(_gradient_bytes(loss.model), at.batch, chunk_bytes):
            yield slice(*chunk), self._gradients(loss, at, chunk)

    def _bytes_per_sample(self, model: PureModel) -> int:
        """Return the bytes that one sample takes in a contraction."""
        return _gradient_bytes(model)

    def _contract_chunk(
        self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk, rows: tf.Tensor, partition: Partition
    ) -> np.ndarray:
        """Return the contraction of a chunk of the batch at once."""
        gradients = self._gradients(loss, at, chunk)
        products = [_product_by_part(rows, gradients, part) for part in partition]
        return tf.stack(products, axis=-1).numpy().astype(np.float64)

    @abstractmethod
    def _gradients(self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk) -> tf.Tensor:
        """Return the gradient of each sample of a chunk of the batch, shape (chunk, D)."""


class _ByRules(_InChunks):
    """One backward pass for all samples, then a product at each use of a variable. For samples that do not interact."""

    name: ClassVar[RouteName] = "rules"

    def _bytes_per_sample(self, model: PureModel) -> int:
        # The gradients of at most two variables exist at once.
        return model.dtype.size * sum(sorted(model.sizes[: len(model.trained)])[-2:])

    def _contract_chunk(
        self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk, rows: tf.Tensor, partition: Partition
    ) -> np.ndarray:
        return sum_by_part(loss.contract(*at.part(*chunk), rows).numpy(), loss.model, partition)

    def _gradients(self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk) -> tf.Tensor:
        return loss.sample_gradients(*at.part(*chunk), by_rule=True)


class _ByLoop(_InChunks):
    """A backward pass for each sample, then one matrix product for all rows. For samples that do not interact."""

    name: ClassVar[RouteName] = "loop"

    def _gradients(self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk) -> tf.Tensor:
        return loss.sample_gradients(*at.part(*chunk), by_rule=False)


class _ByCalls(_InChunks):
    """The same with a call for each sample, of a function that the replay of a run compiles anyway."""

    name: ClassVar[RouteName] = "calls"

    def _gradients(self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk) -> tf.Tensor:
        return tf.stack([loss.gradient(*at.part(k, k + 1)) for k in range(*chunk)])


class _ByShares(_InChunks):
    """The same with the whole batch, for each sample's share of its loss; exact for coupled samples too."""

    name: ClassVar[RouteName] = "shares"

    def _gradients(self, loss: LossDerivatives, at: TrainingPoint, chunk: Chunk) -> tf.Tensor:
        shares = np.eye(len(at.batch))[slice(*chunk)]
        return tf.stack([loss.gradient(*at, own) for own in shares])


class _ByJvp:
    """One JVP of the batch's losses for each row and part; exact for coupled samples too."""

    name: ClassVar[RouteName] = "jvp"

    def contract(
        self,
        loss: LossDerivatives,
        at: TrainingPoint,
        rows: tf.Tensor,
        partition: Partition,
        chunk_bytes: int = CHUNK_BYTES,
    ) -> np.ndarray:
        padding = [[0, 0], [0, loss.model.point_size - loss.model.theta_size]]
        masked = (_masked(rows, part) for part in partition)
        parts = [self._jvp(loss, at, tf.pad(directions, padding)) for directions in masked]
        return tf.stack(parts, axis=-1).numpy().astype(np.float64)

    def gradient_chunks(
        self, loss: LossDerivatives, at: TrainingPoint, chunk_bytes: int = CHUNK_BYTES
    ) -> Iterator[tuple[slice, tf.Tensor]]:
        # No chunks: each gradient depends on the whole batch.
        yield slice(0, len(at.batch)), loss.coupled_gradients(*at)

    def _jvp(self, loss: LossDerivatives, at: TrainingPoint, directions: tf.Tensor) -> tf.Tensor:
        return loss.jvp(*at, directions)


class _ByTokenJvp(_ByJvp):
    """The same for the loss of each position."""

    name: ClassVar[RouteName] = "token_jvp"

    def _jvp(self, loss: LossDerivatives, at: TrainingPoint, directions: tf.Tensor) -> tf.Tensor:
        return loss.token_jvp(*at, directions)


ROUTES: dict[RouteName, Route] = {
    route.name: route for route in (_ByRules(), _ByLoop(), _ByCalls(), _ByJvp(), _ByShares(), _ByTokenJvp())
}


def within(partition: Partition, size: int) -> Partition:
    """Return the partition of the first ``size`` elements."""
    return [[(a, min(b, size)) for a, b in part if a < size] for part in partition]


def sum_by_part(by_variable: np.ndarray, model: PureModel, partition: Partition) -> np.ndarray:
    """Return the sums by part, shape (..., P), of values of the first V variables, shape (..., V), in float64."""
    starts = np.cumsum([0, *model.sizes])[: by_variable.shape[-1]]
    member = np.array(
        [[any(a <= s < b for a, b in slices) for slices in partition] for s in starts], np.float64
    )
    return by_variable.astype(np.float64) @ member


def _product_by_part(rows: tf.Tensor, gradients: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    if not part:  # a layer that has state but no weights
        return tf.zeros((rows.shape[0], gradients.shape[0]), rows.dtype)
    return tf.add_n([scalar_products(rows[:, a:b], gradients[:, a:b]) for a, b in part])


def _masked(rows: tf.Tensor, part: Sequence[tuple[int, int]]) -> tf.Tensor:
    mask = np.zeros(rows.shape[1], bool)
    for start, stop in part:
        mask[start:stop] = True
    return rows if mask.all() else tf.where(mask, rows, tf.zeros_like(rows))


def _gradient_bytes(model: PureModel) -> int:
    """Return the bytes of one gradient."""
    return model.theta_size * model.dtype.size


def _chunks(bytes_per_sample: int, batch: Batch, chunk_bytes: int) -> Iterator[Chunk]:
    """Yield chunks of about equal size."""
    most = max(1, chunk_bytes // bytes_per_sample)
    count = -(-len(batch) // most)
    yield from itertools.pairwise(np.linspace(0, len(batch), count + 1).round().astype(int).tolist())
