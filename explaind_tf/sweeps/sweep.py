"""`Sweep`: a way through the steps of a path. Steps in, entries out."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from explaind_tf.kernel.path_integrals import PathStep, StepIntegral
from explaind_tf.ledgers.book import Book, Entry
from explaind_tf.progress import Progress
from explaind_tf.replay.path_replay import ReplayedStep


@dataclass(frozen=True)
class Pass:
    """One kind of pass, averaged over the steps that were tried.

    Attributes
    ----------
    name : str
        What it does.
    count : float
        How often each step, for each input where it depends on the input.
    seconds : float
        For one step, all inputs.
    """

    name: str
    count: float
    seconds: float


@dataclass(frozen=True)
class TriedStep:
    """A step on which the passes of a sweep are tried, to say what they cost.

    Attributes
    ----------
    replayed : ReplayedStep
        The step.
    step : PathStep
        As it is integrated.
    integral : StepIntegral
        What it did to the first block of inputs.
    nodes : float
        Quadrature nodes an input.
    share : float
        All inputs over those of the first block.
    """

    replayed: ReplayedStep
    step: PathStep
    integral: StepIntegral
    nodes: float
    share: float


class Sweep(Protocol):
    """A way through the steps of a path."""

    @property
    def name(self) -> str:
        """The sweep in words, for the ledger's ``attrs["method"]``."""
        ...

    @property
    def first_step(self) -> int:
        """The first step at which it books entries."""
        ...

    @property
    def inputs_at_once(self) -> int:
        """Inputs that it takes through the steps together."""
        ...

    @property
    def working_bytes(self) -> int:
        """What it holds beside the entries."""
        ...

    def price(self, tried: TriedStep) -> Iterator[Pass]:
        """Yield the passes of one step, each tried."""
        ...

    def run(self, progress: Progress) -> Iterator[Entry]:
        """Yield the entries of all steps."""
        ...

    def check(self, book: Book) -> None:
        """Hold what was booked against what the sweep knows of the whole.

        Raises
        ------
        UnbalancedLedgerError
            If it cannot be right.
        """
        ...
