"""What a notebook shows of a run or a ledger: a short table, as HTML."""

from collections.abc import Iterable
from html import escape
from typing import Final

# Notebooks are light or dark, so no colour is set.
_CELL: Final = "text-align:left;padding:.1em 1em .1em 0;font-variant-numeric:tabular-nums"
_LONGEST: Final = 200


def summary(title: str, rows: Iterable[tuple[str, str]], *, foot: str = "") -> str:
    """Return a title and a table of names and values.

    Parameters
    ----------
    title : str
        What it is.
    rows : iterable of (str, str)
        Text. It is escaped, and cut if it is long.
    foot : str
        Text below.
    """
    cells = "".join(
        f'<tr><th scope="row" style="{_CELL};font-weight:normal">{_text(name)}</th>'
        f'<td style="{_CELL}">{_text(value)}</td></tr>'
        for name, value in rows
    )
    below = f"<small>{_text(foot)}</small>" if foot else ""
    return f"<div><strong>{_text(title)}</strong><table><tbody>{cells}</tbody></table>{below}</div>"


def _text(value: str) -> str:
    return escape(value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}…")
