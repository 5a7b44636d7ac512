"""`Routes`: how an answer is computed, as data."""

from dataclasses import dataclass

from explaind_tf.kernel.contractions import Route
from explaind_tf.replay.path_replay import Grouping
from explaind_tf.sweeps.parts import PartsRoute


@dataclass(frozen=True)
class Routes:
    """How an answer is computed.

    Attributes
    ----------
    rows_by_rule : bool
        Whether gradients of measurements are made by rules.
    parts : PartsRoute or None
        How causes are split over layers or weights, if they are.
    samples : Route or None
        How a batch is contracted with the rows Ψ of a reverse sweep, if there is one.
    grouping : Grouping or None
        The groups of a forward sweep, if there is one.
    splits_late : bool
        Whether steps are integrated whole, and split into causes by the rows Φ that a reverse sweep makes anyway.
    """

    rows_by_rule: bool = False
    parts: PartsRoute | None = None
    samples: Route | None = None
    grouping: Grouping | None = None
    splits_late: bool = False
