"""How a command ends: an exit code that says why, and one line on the error stream."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer
from rich.console import Console
from rich.markup import escape

from explaind_tf.errors import RunFormatError, UnbalancedLedgerError

REFUSED: Final = 1
DAMAGED: Final = 3  # 2 is the shell library's own code for wrong usage
UNBALANCED: Final = 4

EXIT_CODES: Final = (
    "Exit codes: 0 fine; 1 refused (inputs, question or files that cannot be used); 2 wrong usage; 3 RUN is not a "
    "recorded run, or is damaged; 4 a ledger or a step does not balance. Results go to stdout, everything else to stderr; "
    "the last line there says what was wrong."
)

# Any other error is a bug and shows its traceback. RefusedError and RunFormatError are ValueErrors.
_EXPECTED = (ImportError, MemoryError, OSError, UnbalancedLedgerError, ValueError)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn expected errors into one line on the error stream and an exit code."""
    try:
        yield
    except _EXPECTED as error:
        # Messages of libraries may have several lines.
        say("[bold red]Error:[/]", " ".join(str(error).split()) or type(error).__name__)
        raise typer.Exit(_code(error)) from None


def say(label: str, message: str) -> None:
    """Print one line on the error stream: a label with markup, and a message without."""
    Console(stderr=True).print(f"{label} {escape(message)}", highlight=False, soft_wrap=True)


def _code(error: BaseException) -> int:
    if isinstance(error, RunFormatError):
        return DAMAGED
    return UNBALANCED if isinstance(error, UnbalancedLedgerError) else REFUSED
