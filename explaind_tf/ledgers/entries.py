"""Accumulators of a ledger's entries: float64 arrays with named dimensions."""

import os

import numpy as np

from explaind_tf import constants as names
from explaind_tf.questions.question import Question

# Share of the machine's memory that the arrays of one ledger may take.
_MEMORY_SHARE = 0.5


class Entries:
    """Adds up the entries of a ledger, each term over the axes that it has.

    The data term has a sample axis if samples are kept, and a token axis if tokens are; all terms but state and
    residual have a part axis (layers or weights) if parts are kept, and state has it for layers.

    Parameters
    ----------
    question : Question
        The axes kept.
    inputs, outputs, samples, tokens, groups, parts : int
        Lengths of the axes.
    first_step, stop_step : int
        Range of the step axis.

    Raises
    ------
    MemoryError
        If the arrays would not fit into memory.
    """

    def __init__(
        self,
        question: Question,
        *,
        inputs: int,
        outputs: int,
        samples: int,
        tokens: int,
        groups: int,
        parts: int,
        first_step: int,
        stop_step: int,
    ) -> None:
        self._question = question
        self._lengths = {
            names.INPUT: inputs,
            names.OUTPUT: outputs,
            names.SAMPLE: samples,
            names.TOKEN: tokens,
            names.GROUP: groups,
            names.LAYER: parts,
            names.PARAMETER: parts,
            names.STEP: stop_step - first_step,
        }
        self._first_step = first_step
        self.arrays: dict[str, np.ndarray] = {}
        self._refuse_too_large()
        for term in (names.INITIAL, names.FINAL, *question.terms):
            self.arrays[term] = self._zeros(self.dims(term))

    def _zeros(self, dims: tuple[str, ...]) -> np.ndarray:
        shape = [self._lengths[dim] for dim in dims]
        if dims[-1] != names.STEP:
            return np.zeros(shape)
        # The entries of a step lie together in memory: they are booked step by step.
        return np.moveaxis(np.zeros([shape[-1], *shape[:-1]]), 0, -1)

    def dims(self, term: str) -> tuple[str, ...]:
        """Return the names of a term's dimensions, in order."""
        dims = [names.INPUT, names.OUTPUT]
        if term in (names.INITIAL, names.FINAL):
            return tuple(dims)
        if term == names.DATA and self._question.keeps_samples:
            dims.append(names.SAMPLE)
            if self._question.keeps_tokens:
                dims.append(names.TOKEN)
        if term == names.DATA and self._question.keeps_groups:
            dims.append(names.GROUP)
        if term != names.RESIDUAL and self._question.keeps_layers:
            dims.append(names.LAYER)
        if term not in (names.RESIDUAL, names.STATE) and self._question.keeps_parameters:
            dims.append(names.PARAMETER)
        if self._question.keeps_steps:
            dims.append(names.STEP)
        return tuple(dims)

    def add(self, term: str, rows: slice, values: np.ndarray, step: int) -> None:
        """Add values (batch, O[, groups][, parts]) of one step to the inputs ``rows``."""
        array = self.arrays[term]
        if self._question.keeps_steps:
            array[rows][..., step - self._first_step] += values
        else:
            array[rows] += values

    def add_samples(self, rows: slice, positions: np.ndarray, values: np.ndarray, step: int) -> None:
        """Add values (batch, O, K[, tokens][, parts]) of K samples at ``positions`` of the sample or group axis.

        Samples may have fewer tokens than the axis, which ends with the longest.
        """
        array = self.arrays[names.DATA][rows]
        if self._question.keeps_steps:
            array = array[..., step - self._first_step]
        if self._question.keeps_tokens:
            array = array[:, :, :, : values.shape[3]]
        # One sample may occur more than once in a batch, which fancy-indexed += would count once.
        np.add.at(np.moveaxis(array, 2, 0), positions, np.moveaxis(values, 2, 0))

    def set_outputs(self, term: str, rows: slice, values: np.ndarray) -> None:
        """Set ``initial`` or ``final`` of the inputs ``rows``."""
        self.arrays[term][rows] = values

    def total(self, term: str) -> np.ndarray:
        """Return a term summed over all axes but input and output, shape (inputs, O)."""
        array = self.arrays[term]
        return array.sum(axis=tuple(range(2, array.ndim)))

    def close(self) -> None:
        """Book to the residual what is still missing, so that the ledger adds up by construction.

        The quadrature error and the rounding of each step are booked to that step as they are found. What
        remains is rounding of the sums themselves (in the reverse sweep, of reordering effect steps to use
        steps); it belongs to no step and is booked at the last one.
        """
        moved = self.arrays[names.FINAL] - self.arrays[names.INITIAL]
        missing = moved - sum(self.total(term) for term in self._question.terms)
        residual = self.arrays[names.RESIDUAL]
        if self._question.keeps_steps:
            residual[..., -1] += missing
        else:
            residual += missing

    def _refuse_too_large(self) -> None:
        needed = {
            term: 8 * np.prod([float(self._lengths[dim]) for dim in self.dims(term)])
            for term in self._question.terms
        }
        available = total_memory() * _MEMORY_SHARE
        if sum(needed.values()) > available:
            largest = max(needed, key=lambda term: needed[term])
            sizes = " × ".join(f"{self._lengths[dim]} {dim}s" for dim in self.dims(largest))
            raise MemoryError(
                f"The ledger would take {sum(needed.values()) / 1e9:,.1f} GB; {available / 1e9:,.1f} GB are allowed. "
                f"Its largest array is {largest!r}: {sizes}. Keep fewer axes, or attribute fewer inputs or outputs "
                f"at a time."
            )


def total_memory() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
