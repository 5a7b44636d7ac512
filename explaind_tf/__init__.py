"""Double-entry bookkeeping for the predictions of a Keras model."""

import sys
from pathlib import Path

from explaind_tf.constants import VERSION as __version__
from explaind_tf.errors import RefusedError, RunFormatError, UnbalancedLedgerError

# The console script imports this package only to get at its commands, each of which imports what it needs: its --help
# need not wait for TensorFlow. Anywhere else an import has effects that must not depend on which name is used first:
# optimizers are registered with Keras, which loads saved models by them, and ledgers get their accessor.
if Path(sys.argv[0] if sys.argv else "").stem != "explaind-tf":
    from explaind_tf import measurements
    from explaind_tf.attribution import Run, open_run
    from explaind_tf.optimizers import PathAdamW, PathSGD
    from explaind_tf.recording import PathLogger

__all__ = [
    "PathAdamW",
    "PathLogger",
    "PathSGD",
    "RefusedError",
    "Run",
    "RunFormatError",
    "UnbalancedLedgerError",
    "__version__",
    "measurements",
    "open_run",
]
