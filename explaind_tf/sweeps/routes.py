"""`Routes`: how an answer is computed, as data."""

from dataclasses import dataclass

from explaind_tf.kernel.contractions import Route
from explaind_tf.kernel.derivatives.measurement import RowsRoute
from explaind_tf.replay.path_replay import Grouping
from explaind_tf.sweeps.parts import PartsRoute


@dataclass(frozen=True)
class Routes:
    """How an answer is computed.

    Attributes
    ----------
    rows : RowsRoute
        How the gradients of measurements are computed, if they are needed.
    parts : PartsRoute or None
        How causes are split over layers or weights, if the path sweep splits them.
    samples : Route or None
        How a batch is contracted with the rows Ψ of a reverse sweep, if there is one.
    grouping : Grouping or None
        The groups of a forward sweep, if there is one.
    splits_late : bool
        Whether the path sweep integrates each step as a whole. The reverse sweep then splits it into causes by its rows Φ.
    """

    rows: RowsRoute = "loop"
    parts: PartsRoute | None = None
    samples: Route | None = None
    grouping: Grouping | None = None
    splits_late: bool = False
