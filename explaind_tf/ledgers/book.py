"""`Book`: adds up the entries of a ledger as the sweeps yield them."""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from explaind_tf import constants as names
from explaind_tf.questions.question import Question
from explaind_tf.terms import OUTPUT_DESCRIPTIONS, SAMPLE_DESCRIPTIONS, term

# Share of the machine's memory that the arrays of one ledger may take.
_MEMORY_SHARE = 0.5


class Entry(NamedTuple):
    """What one step did to some inputs by one term, or what their outputs were.

    Attributes
    ----------
    term : str
        The term. ``"initial"`` and ``"final"`` stand for outputs; a later entry of these replaces an earlier one.
    inputs : slice
        Which inputs.
    step : int
        The step under which it is entered.
    values : np.ndarray
        Shape (batch, O[, groups][, parts]); with ``members`` (batch, O, K[, tokens][, parts]). Units of the measurement.
    members : np.ndarray of int or None
        Positions of K samples on the sample or group axis. They may have fewer tokens than the axis.
    """

    term: str
    inputs: slice
    step: int
    values: np.ndarray
    members: np.ndarray | None = None


class BookPart(NamedTuple):
    """The entries of some inputs and steps, added up.

    Attributes
    ----------
    first_step : int
        First step of the step axis.
    arrays : dict of str to np.ndarray
        The array of each term that has entries, and of the outputs.
    """

    first_step: int
    arrays: dict[str, np.ndarray]


class Book:
    """Accumulators of a ledger's entries: one float64 array for each term, over the axes of that term.

    Parameters
    ----------
    question : Question
        Says which axes are kept.
    lengths : mapping
        Lengths of the axes by name. Those of axes that the question does not keep are ignored.
    first_step : int
        First step of the step axis.
    stop : int, optional
        The step after its last. Default: that of the question.

    Attributes
    ----------
    lengths : dict of str to int
        Length of each axis.
    arrays : dict of str to np.ndarray
        The array of each term, and of the outputs ``initial`` and ``final``.

    Raises
    ------
    MemoryError
        If the arrays would take more memory than is allowed.
    """

    def __init__(
        self, question: Question, lengths: Mapping[str, int], first_step: int, stop: int | None = None
    ) -> None:
        self._question = question
        self.lengths = {**lengths, names.STEP: (question.stop if stop is None else stop) - first_step}
        self._first_step = first_step
        self._written: set[str] = set()
        self._of_samples = tuple(SAMPLE_DESCRIPTIONS) if question.options.conditioning else ()
        self._refuse_too_large()
        variables = (*OUTPUT_DESCRIPTIONS, *question.terms, *self._of_samples)
        self.arrays = {name: self._zeros(self.dims(name)) for name in variables}

    def _zeros(self, dims: tuple[str, ...]) -> np.ndarray:
        shape = [self.lengths[dim] for dim in dims]
        if dims[-1] != names.STEP:
            return np.zeros(shape)
        # Entries arrive step by step, so those of one step lie together in memory.
        return np.moveaxis(np.zeros([shape[-1], *shape[:-1]]), 0, -1)

    def dims(self, name: str) -> tuple[str, ...]:
        """Return the names of a variable's dimensions, in order."""
        if name in OUTPUT_DESCRIPTIONS:
            return names.INPUT, names.OUTPUT
        if name in SAMPLE_DESCRIPTIONS:
            return names.INPUT, names.OUTPUT, names.SAMPLE
        return term(name).dims(self._question.axes)

    def add(self, entry: Entry) -> None:
        """Add an entry."""
        self._written.add(entry.term)
        array = self.arrays[entry.term][entry.inputs]
        if entry.term in OUTPUT_DESCRIPTIONS:
            array[...] = entry.values
            return
        if self._question.keeps_steps and entry.term not in SAMPLE_DESCRIPTIONS:
            array = array[..., entry.step - self._first_step]
        if entry.members is None:
            array += entry.values
            return
        if self._question.keeps_tokens and entry.term not in SAMPLE_DESCRIPTIONS:
            array = array[:, :, :, : entry.values.shape[3]]
        # A sample may occur twice in a batch. Fancy-indexed += would count it once.
        np.add.at(np.moveaxis(array, 2, 0), entry.members, np.moveaxis(entry.values, 2, 0))

    def written(self) -> "BookPart":
        """Return the arrays that have entries."""
        return BookPart(self._first_step, {name: self.arrays[name] for name in sorted(self._written)})

    def add_part(self, part: "BookPart", inputs: slice) -> None:
        """Add what another book has of some inputs. Its steps are among those of this one."""
        self._written.update(part.arrays)
        for name, values in part.arrays.items():
            array = self.arrays[name][inputs]
            if name in OUTPUT_DESCRIPTIONS:
                array[...] = values
                continue
            if self.dims(name)[-1] == names.STEP:
                start = part.first_step - self._first_step
                array = array[..., start : start + values.shape[-1]]
            array += values

    def total(self, name: str) -> np.ndarray:
        """Return a term summed over all axes but input and output, shape (inputs, O)."""
        array = self.arrays[name]
        return array.sum(axis=tuple(range(2, array.ndim)))

    def close(self) -> None:
        """Add what is still missing to the residual, which makes the ledger add up by construction.

        The sweeps enter the quadrature error and the rounding of each step under that step. What remains is the rounding
        of the sums themselves (in the reverse sweep, of reordering effect steps to use steps). It belongs to no step and
        is entered under the last one.
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
        variables = (*self._question.terms, *self._of_samples)
        refuse_beyond_memory({name: self.dims(name) for name in variables}, self.lengths)


def refuse_beyond_memory(variables: Mapping[str, tuple[str, ...]], lengths: Mapping[str, int]) -> None:
    """Refuse arrays of float64 that take too much of the machine's memory.

    Parameters
    ----------
    variables : mapping
        The dimensions of each array.
    lengths : mapping
        The length of each dimension.

    Raises
    ------
    MemoryError
        If they would take more memory than is allowed.
    """
    needed = {name: 8 * np.prod([float(lengths[dim]) for dim in dims]) for name, dims in variables.items()}
    available = total_memory() * _MEMORY_SHARE
    if sum(needed.values()) > available:
        largest = max(needed, key=lambda name: needed[name])
        sizes = " × ".join(f"{lengths[dim]} {dim}s" for dim in variables[largest])
        raise MemoryError(
            f"The answer would take {sum(needed.values()) / 1e9:,.1f} GB; {available / 1e9:,.1f} GB are allowed. "
            f"Its largest array is {largest!r}: {sizes}. Keep fewer axes, ask about fewer inputs or outputs "
            f'at a time, or write it to disk block by block: out="ledger.zarr".'
        )


def total_memory() -> int:
    """Return the bytes of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
