"""Opens the run that a command line names."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from explaind_tf.cli.exits import say

if TYPE_CHECKING:
    from explaind_tf.attribution import Run
    from explaind_tf.runs import RecordedRun


def open_to_read(run_dir: str) -> "RecordedRun":
    """Open a run that nothing is asked which needs TensorFlow. Each warning becomes a line on the error stream."""
    from explaind_tf.runs import RecordedRun

    with _warnings_said():
        return RecordedRun(run_dir)


def open_to_ask(run_dir: str) -> "Run":
    """Open a run to ask it. Each warning becomes a line on the error stream."""
    from explaind_tf.attribution import open_run

    with _warnings_said():
        return open_run(run_dir)


@contextmanager
def _warnings_said() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in caught:
        say("[bold yellow]Warning:[/]", str(warning.message))
