"""Progress bars for long sweeps, drawn on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress
from rich.text import Text


class _Rate(ProgressColumn):
    """The number of items done per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.3g}/s")


class Progress:
    """Shows one bar for each task.

    Parameters
    ----------
    enabled : bool
        False shows nothing. Bars are drawn on the error stream, and only if it is a terminal.
    """

    def __init__(self, enabled: bool) -> None:
        self._enabled = enabled

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[], None]]:
        """Open a task and yield the function that advances it by one."""
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        disabled = not (self._enabled and console.is_terminal)
        with RichProgress(*columns, console=console, disable=disabled) as bar:
            task = bar.add_task(description, total=total)
            yield lambda: bar.advance(task)


def progress_of(shown: bool | Progress) -> Progress:
    """Return the progress that a public function was given: whether to draw bars, or something of one's own."""
    return shown if isinstance(shown, Progress) else Progress(shown)
