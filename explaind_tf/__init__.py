"""Double-entry bookkeeping for the predictions of a Keras model."""

from typing import Any

from explaind_tf import measurements
from explaind_tf.attribution import Run, open_run
from explaind_tf.checkpoints import open_checkpoints
from explaind_tf.constants import VERSION as __version__
from explaind_tf.errors import RefusedError, RunFormatError, UnbalancedLedgerError
from explaind_tf.ledgers import plotting
from explaind_tf.live import Explain
from explaind_tf.optimizers import (
    PathAdadelta,
    PathAdafactor,
    PathAdagrad,
    PathAdam,
    PathAdamax,
    PathAdamW,
    PathLion,
    PathNadam,
    PathRMSprop,
    PathSGD,
)
from explaind_tf.recording import PathLogger

__all__ = [
    "Explain",
    "PathAdadelta",
    "PathAdafactor",
    "PathAdagrad",
    "PathAdam",
    "PathAdamW",
    "PathAdamax",
    "PathLion",
    "PathLogger",
    "PathNadam",
    "PathRMSprop",
    "PathSGD",
    "RefusedError",
    "Run",
    "RunFormatError",
    "UnbalancedLedgerError",
    "__version__",
    "measurements",
    "open_checkpoints",
    "open_run",
]


def _plots_of(ledger: Any) -> Any:
    """Return the figures of a ledger. The import is here because plotly imports slowly and few users need it."""
    from explaind_tf.report.plots import LedgerPlots

    return LedgerPlots(ledger)


plotting.register(_plots_of)
