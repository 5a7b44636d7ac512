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
        Whether gradients of measurements are computed by rules.
    parts : PartsRoute or None
        How causes are split over layers or weights, if the path sweep splits them.
    samples : Route or None
        How a batch is contracted with the rows Ψ of a reverse sweep, if there is one.
    grouping : Grouping or None
        The groups of a forward sweep, if there is one.
    splits_late : bool
        Whether the path sweep integrates each step as a whole. The reverse sweep then splits it into causes by its rows Φ.
    """

    rows_by_rule: bool = False
    parts: PartsRoute | None = None
    samples: Route | None = None
    grouping: Grouping | None = None
    splits_late: bool = False
