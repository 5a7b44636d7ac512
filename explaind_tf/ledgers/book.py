"""`Book`: adds up the entries of a ledger, as the sweeps find them."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explaind_tf import constants as names
from explaind_tf.questions.question import Question
from explaind_tf.terms import OUTPUT_DESCRIPTIONS, term

# Share of the machine's memory that the arrays of one ledger may take.
_MEMORY_SHARE = 0.5


class Entry(NamedTuple):
    """What one step did to some inputs by one term, or what their outputs were.

    Attributes
    ----------
    term : str
        The term; ``"initial"`` and ``"final"`` for outputs, of which the last ones count.
    inputs : slice
        Which inputs.
    step : int
        The step that it is booked at.
    values : np.ndarray
        Shape (batch, O[, groups][, parts]); with ``members`` (batch, O, K[, tokens][, parts]). Units of the measurement.
    members : np.ndarray of int or None
        Where K samples stand on the sample or group axis. They may have fewer tokens than the axis.
    """

    term: str
    inputs: slice
    step: int
    values: np.ndarray
    members: np.ndarray | None = None


class Book:
    """Accumulators of a ledger's entries: one float64 array for each term, over the axes that it has.

    Parameters
    ----------
    question : Question
        The axes kept.
    lengths : mapping
        Lengths of the axes by name. Those that the question does not keep are not looked at.
    first_step : int
        Where the step axis begins.

    Attributes
    ----------
    arrays : dict of str to np.ndarray
        By term, and the outputs ``initial`` and ``final``.

    Raises
    ------
    MemoryError
        If the arrays would not fit into memory.
    """

    def __init__(self, question: Question, lengths: Mapping[str, int], first_step: int) -> None:
        self._question = question
        self._lengths = {**lengths, names.STEP: question.stop - first_step}
        self._first_step = first_step
        self._refuse_too_large()
        variables = (*OUTPUT_DESCRIPTIONS, *question.terms)
        self.arrays = {name: self._zeros(self.dims(name)) for name in variables}

    def _zeros(self, dims: tuple[str, ...]) -> np.ndarray:
        shape = [self._lengths[dim] for dim in dims]
        if dims[-1] != names.STEP:
            return np.zeros(shape)
        # The entries of a step lie together in memory: they are booked step by step.
        return np.moveaxis(np.zeros([shape[-1], *shape[:-1]]), 0, -1)

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of a variable's dimensions, in order."""
        if name in OUTPUT_DESCRIPTIONS:
            return names.INPUT, names.OUTPUT
        return term(name).dims(self._question.axes)

    def add(self, entry: Entry) -> None:
        """Book an entry."""
        array = self.arrays[entry.term][entry.inputs]
        if entry.term in OUTPUT_DESCRIPTIONS:
            array[...] = entry.values
            return
        if self._question.keeps_steps:
            array = array[..., entry.step - self._first_step]
        if entry.members is None:
            array += entry.values
            return
        if self._question.keeps_tokens:
            array = array[:, :, :, : entry.values.shape[3]]
        # One sample may occur more than once in a batch, which fancy-indexed += would count once.
        np.add.at(np.moveaxis(array, 2, 0), entry.members, np.moveaxis(entry.values, 2, 0))

    def total(self, name: str) -> np.ndarray:
        """Return a term summed over all axes but input and output, shape (inputs, O)."""
        array = self.arrays[name]
        return array.sum(axis=tuple(range(2, array.ndim)))

    def close(self) -> None:
        """Book to the residual what is still missing, so that the ledger adds up by construction.

        The quadrature error and the rounding of each step are booked to that step as they are found. What
        remains is rounding of the sums themselves (in the reverse sweep, of reordering effect steps to use
        steps); it belongs to no step and is booked at the last one.
        """
        moved = self.arrays[names.FINAL] - self.arrays[names.INITIAL]
        missing = moved - sum(self.total(name) for name in self._question.terms)
        residual = self.arrays[names.RESIDUAL]
        if self._question.keeps_steps:
            residual[..., -1] += missing
        else:
            residual += missing

    @property
    def byte_count(self) -> int:
        """Bytes of all arrays."""
        return sum(array.nbytes for array in self.arrays.values())

    def _refuse_too_large(self) -> None:
        needed = {
            name: 8 * np.prod([float(self._lengths[dim]) for dim in self.dims(name)])
            for name in self._question.terms
        }
        available = total_memory() * _MEMORY_SHARE
        if sum(needed.values()) > available:
            largest = max(needed, key=lambda name: needed[name])
            sizes = " × ".join(f"{self._lengths[dim]} {dim}s" for dim in self.dims(largest))
            raise MemoryError(
                f"The ledger would take {sum(needed.values()) / 1e9:,.1f} GB; {available / 1e9:,.1f} GB are allowed. "
                f"Its largest array is {largest!r}: {sizes}. Keep fewer axes, or attribute fewer inputs or outputs "
                f"at a time."
            )


def total_memory() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
