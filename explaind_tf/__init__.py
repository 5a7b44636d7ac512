"""Double-entry bookkeeping for the predictions of a Keras model.

What the package exports is imported when it is first used: TensorFlow, Keras and pandas take seconds, which the shell and
programs that only read a run do without.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from wrapt import register_post_import_hook

from explaind_tf.constants import VERSION as __version__
from explaind_tf.errors import RefusedError, RunFormatError, UnbalancedLedgerError, WorkersError

if TYPE_CHECKING:
    from explaind_tf import measurements
    from explaind_tf.attribution import Run, open_run
    from explaind_tf.checkpoints import open_checkpoints
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
    "WorkersError",
    "__version__",
    "measurements",
    "open_checkpoints",
    "open_run",
]

# The module of each name that is imported late, if it is not the optimizers'.
_MODULES: Final = {
    "Explain": "live",
    "PathLogger": "recording",
    "Run": "attribution",
    "measurements": "measurements",
    "open_checkpoints": "checkpoints",
    "open_run": "attribution",
}


def __getattr__(name: str) -> Any:
    """Import a name of the package when it is first used (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_MODULES.get(name, 'optimizers')}")
    found = module if name == "measurements" else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Return all names, for completion."""
    return sorted({*globals(), *__all__})


def _register_optimizers(_: Any) -> None:
    """Make the optimizers known to Keras, which loads saved models with them, as soon as Keras is imported."""
    import_module(f"{__name__}.optimizers")


def _register_accessor(_: Any) -> None:
    """Give datasets of xarray their methods ``.explaind``, as soon as xarray is imported, by whomever."""
    from explaind_tf.ledgers import accessor, plotting

    accessor.register()
    plotting.register(_plots_of)


def _plots_of(ledger: Any) -> Any:
    """Return the figures of a ledger. The import is here because plotly imports slowly and few users need it."""
    from explaind_tf.report.plots import LedgerPlots

    return LedgerPlots(ledger)


def _register_explorer(exploring: Any) -> None:
    """Let runs open their page, as soon as there may be runs."""
    exploring.register(_explore)


def _explore(*arguments: Any, **options: Any) -> Any:
    """Open the page of a run. The import is here because the page needs Dash, which few users have installed."""
    from explaind_tf.explore.opening import explore

    return explore(*arguments, **options)


register_post_import_hook(_register_optimizers, "keras")
register_post_import_hook(_register_accessor, "xarray")
register_post_import_hook(_register_explorer, f"{__name__}.attribution.exploring")
