"""The steps of a ledger that the optimizer's law does not explain."""

from typing import Any

from explaind_tf import constants as names
from explaind_tf.errors import UnbalancedLedgerError

_SHOWN = 10


def unexplained_steps(ledger: Any) -> tuple[int, str]:
    """Return the number of such steps, and the first of them in words."""
    found = list(ledger.attrs.get("unexplained_steps", ()))
    return len(found), ", ".join(map(str, found[:_SHOWN])) + (", …" if len(found) > _SHOWN else "")


def refuse_unexplained(ledger: Any) -> None:
    """Raise an error if there are such steps.

    Raises
    ------
    UnbalancedLedgerError
        If there are. The message names the first of them.
    """
    count, shown = unexplained_steps(ledger)
    if count:
        raise UnbalancedLedgerError(
            f"The optimizer's law does not explain {count} steps of this ledger: {shown}. What it misses is entered under "
            f"{names.EXTERNAL!r}. Something else set weights within these steps, such as a train_step of your own. Read the "
            f"entries of {names.EXTERNAL!r}, or call check() without strict=True."
        )
