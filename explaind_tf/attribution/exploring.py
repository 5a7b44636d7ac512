"""The function that opens a page about a run. It is registered here, since imports may not lead up to the page."""

from collections.abc import Callable
from typing import Any

Explorer = Callable[..., Any]

_registered: list[Explorer] = []


def register(explorer: Explorer) -> None:
    """Set the function that opens the page of a run. It replaces one set before.

    Parameters
    ----------
    explorer : callable
        Takes a run and the arguments of ``run.explore``. It is called only when a page is asked for.
    """
    _registered[:] = [explorer]


def explorer() -> Explorer:
    """Return the function that opens the page of a run."""
    return _registered[0]
