"""A question about some inputs, ready to be computed: all that the sweeps of one answer share."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from explaind_tf import constants as names
from explaind_tf.kernel.contractions import CHUNK_BYTES, STRETCH
from explaind_tf.kernel.derivatives.derivatives import Derivatives, Precisions
from explaind_tf.kernel.functions import Block
from explaind_tf.kernel.quadrature.nodes import Quadrature
from explaind_tf.ledgers.book import total_memory
from explaind_tf.questions.question import Question
from explaind_tf.replay.path_replay import PathReplay
from explaind_tf.replay.replay import Replay
from explaind_tf.runs import WeightPath
from explaind_tf.terms import term

# Arrays of rows held at once, for example Φ, Ψ, the new Ψ made from both, and a factor of the contraction.
ROWS_HELD = 4
# More memory than this makes nothing faster. About four arrays of rows Φ or Ψ are held at once, the activations of a block
# of inputs a few times, and gradients of single samples once.
_ROWS_BYTES = 512 * 2**20
_BLOCK_BYTES = 256 * 2**20
_LARGEST_BLOCK = 4096
# Share of the machine's memory that a computation may take beside its ledger.
_MEMORY_SHARE = 0.5
# Shares of the memory limit.
_ROWS_SHARE, _BLOCK_SHARE, _CHUNK_SHARE = 1 / 10, 1 / 20, 1 / 10 / STRETCH


@dataclass(frozen=True)
class Piece:
    """Part of one block of inputs, from ``start``, whose rows fit into memory."""

    block: int
    start: int
    rows: slice
    inputs: Block

    def quadrature_of(self, quadrature: Quadrature) -> Quadrature:
        """Return the part of the block's quadrature that belongs to these inputs."""
        return quadrature.part(self.start, self.start + len(self.inputs))


@dataclass(frozen=True)
class Task:
    """What is to be computed.

    Attributes
    ----------
    run : WeightPath
        The run.
    precisions : Precisions
        Derivatives of the run's model and the measurement, in the precision of the analysis and in that of training.
    replay : PathReplay
        The run in the form that the kernel needs.
    question : Question
        What is asked.
    everything : Block
        All inputs to attribute, and the measurement's targets.
    cuts : tuple of int
        Inputs at which a block begins, besides where memory cuts them.
    """

    run: WeightPath
    precisions: Precisions
    replay: PathReplay
    question: Question
    everything: Block
    cuts: tuple[int, ...] = ()

    @property
    def derivatives(self) -> Derivatives:
        """The derivatives in the precision of the analysis."""
        return self.precisions.analysed

    @property
    def as_trained(self) -> Derivatives:
        """The derivatives in the precision of training."""
        return self.precisions.as_trained

    @property
    def recorded(self) -> Replay:
        """The replay of a recorded run, which questions about samples need."""
        assert isinstance(self.replay, Replay)  # other runs were refused when the question was checked
        return self.replay

    @property
    def memory(self) -> float:
        """Share of the momentum that an update leaves (β₁), in the precision of the analysis."""
        memory: float = self.derivatives.model.dtype.as_numpy_dtype(self.recorded.law.memory).item()
        return memory

    @property
    def memory_limit(self) -> int:
        """Bytes that rows, activations and gradients may take together."""
        return self.question.options.memory_limit or int(total_memory() * _MEMORY_SHARE)

    @property
    def point_bytes(self) -> int:
        """Bytes of one point z, and of one row."""
        return self.derivatives.model.point_size * self.derivatives.model.dtype.size

    @property
    def rows_bytes(self) -> int:
        """Most bytes of one array of rows."""
        return int(min(_ROWS_BYTES, self.memory_limit * _ROWS_SHARE))

    @property
    def block_bytes(self) -> int:
        """Most bytes of the activations of one block of inputs."""
        return int(min(_BLOCK_BYTES, self.memory_limit * _BLOCK_SHARE))

    @property
    def chunk_bytes(self) -> int:
        """Most bytes of gradients of single samples."""
        return int(min(CHUNK_BYTES, self.memory_limit * _CHUNK_SHARE))

    @cached_property
    def outputs(self) -> int:
        """Number of outputs of the measurement."""
        probe = self.everything.take(slice(0, 1))
        return int(self.derivatives.measurement.values(*self.replay.end(self.question.first), probe).shape[1])

    def has_parts(self, name: str) -> bool:
        """Whether a term is split over the layers or weights that are kept."""
        return bool(term(name).axes & self.question.axes & {names.LAYER, names.PARAMETER})

    @property
    def steps(self) -> int:
        """Number of steps accounted for."""
        return self.question.stop - self.question.first

    @cached_property
    def slices(self) -> list[slice]:
        """The inputs of each block."""
        total = len(self.everything)
        fitting = self.block_bytes // max(1, self.run.graphs.forward_bytes_per_input)
        size = self.question.options.batch_size or int(np.clip(fitting, 1, _LARGEST_BLOCK))
        parts = itertools.pairwise([0, *self.cuts, total])
        return [
            slice(start, min(start + size, stop))
            for begin, stop in parts
            for start in range(begin, stop, size)
        ]

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks of inputs that are measured together."""
        return [self.everything.take(s) for s in self.slices]

    @property
    def _most_inputs(self) -> int:
        """Number of inputs whose rows fit into memory."""
        return max(1, self.rows_bytes // (self.outputs * self.point_bytes))

    def pieces(self, block: int) -> Iterator[Piece]:
        """Yield the parts of a block for which rows, and a backward pass for all outputs, fit into memory."""
        rows, inputs = self.slices[block], self.blocks[block]
        activations = self.outputs * max(1, self.run.graphs.forward_bytes_per_input)
        most = max(1, min(self._most_inputs, self.block_bytes // activations))
        for start in range(0, len(inputs), most):
            stop = min(start + most, len(inputs))
            own = slice(rows.start + start, rows.start + stop)
            yield Piece(block, start, own, inputs.take(slice(start, stop)))

    def stacked_nodes(self, piece: Piece) -> int:
        """Return the number of nodes whose activations, and gradients by these, fit into memory for a piece's outputs."""
        examples = len(piece.inputs) * self.outputs
        return max(1, self.block_bytes // (2 * examples * max(1, self.run.graphs.forward_bytes_per_input)))

    @cached_property
    def batches_of_pieces(self) -> list[list[Piece]]:
        """The pieces of all blocks, in batches whose rows fit into memory at once."""
        found: list[list[Piece]] = [[]]
        size = 0
        for piece in (piece for block in range(len(self.blocks)) for piece in self.pieces(block)):
            if found[-1] and size + len(piece.inputs) > self._most_inputs:
                found.append([])
                size = 0
            found[-1].append(piece)
            size += len(piece.inputs)
        return found
