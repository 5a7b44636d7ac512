"""The HTML report, and the figures that show ledgers.

What writes a report is imported when it is first used: the figures are drawn without TensorFlow, whose import takes seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from explaind_tf.report.examples import Example

if TYPE_CHECKING:
    from explaind_tf.report.html import write_report
    from explaind_tf.report.section import Section
    from explaind_tf.report.sections import Asked, account_for

__all__ = ["Asked", "Example", "Section", "account_for", "write_report"]

# The module of each name that is imported late.
_MODULES: Final = {
    "Asked": "sections",
    "Section": "section",
    "account_for": "sections",
    "write_report": "html",
}


def __getattr__(name: str) -> Any:
    """Import a name of the package when it is first used (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = found
    return found
