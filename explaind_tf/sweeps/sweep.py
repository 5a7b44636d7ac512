"""`Sweep`: a loop over the steps of a path that yields entries."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from explaind_tf.kernel.path_integrals import PathStep, StepIntegral
from explaind_tf.ledgers.book import Entry
from explaind_tf.progress import Progress
from explaind_tf.replay.path_replay import ReplayedStep


@dataclass(frozen=True)
class Pass:
    """One kind of pass, averaged over the tried steps.

    Attributes
    ----------
    name : str
        What it does.
    count : float
        How often it runs in one step; per input if it depends on the input.
    seconds : float
        Time for one step and all inputs.
    """

    name: str
    count: float
    seconds: float


@dataclass(frozen=True)
class TriedStep:
    """A step on which the passes of a sweep are tried, to estimate their cost.

    Attributes
    ----------
    replayed : ReplayedStep
        The step.
    step : PathStep
        The step as it is integrated.
    integral : StepIntegral
        Its integral for the first block of inputs.
    nodes : float
        Quadrature nodes per input.
    share : float
        Number of all inputs divided by the number in the first block.
    """

    replayed: ReplayedStep
    step: PathStep
    integral: StepIntegral
    nodes: float
    share: float


class Sweep(Protocol):
    """A loop over the steps of a path that yields entries."""

    @property
    def name(self) -> str:
        """The sweep in words, for the ledger's ``attrs["method"]``."""
        ...

    @property
    def first_step(self) -> int:
        """The first step that has entries."""
        ...

    @property
    def inputs_at_once(self) -> int:
        """Number of inputs that go through the steps together."""
        ...

    @property
    def working_bytes(self) -> int:
        """Bytes that it holds beside the entries."""
        ...

    def price(self, tried: TriedStep) -> Iterator[Pass]:
        """Yield the passes of one step with their measured time."""
        ...

    def run(self, progress: Progress) -> Iterator[Entry]:
        """Yield the entries of all steps."""
        ...
