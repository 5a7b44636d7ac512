"""Writes docs/contract.md from the rows: ``python -m tests.contract.table``.

Every row is run; a row that does not do what it promises stops the writing.
"""

import tempfile
from itertools import groupby
from pathlib import Path

from rich.progress import track

from explaind_tf import RefusedError
from tests.contract.rows import ROWS, Row
from tests.contract.test_contract import TABLE, hold_in_a_process, hold_to_the_contract
from tests.helpers import dtype_policy

_INTRODUCTION = """# What is accounted for

Every row below is trained and recorded by the test suite. *Exact to* a number means: with that tolerance, the entries
of the ledger add up to the change of every prediction, whichever axes are kept (the tokens of a sequence among them,
where each has a loss); each entry is where it belongs and nowhere else; the weights are, bit for bit, those of plain
Keras. The numbers are shares of the movement, the largest distance of any output from its start. *Refused* means: `fit`
raises a `RefusedError` before anything is written, which says what was found, what is needed and what to do. There is no
third outcome.

This file is generated (`python -m tests.contract.table`) by running every row.
"""


def outcome(row: Row) -> str:
    """Run a row and return what the table says of it."""
    with tempfile.TemporaryDirectory() as directory, dtype_policy(row.policy):
        try:
            hold = hold_to_the_contract if row.logical_devices == 1 else hold_in_a_process
            hold(row, Path(directory) / "run")
        except RefusedError as error:
            assert row.refused is not None, f"{row.name} was refused: {error}"
            return f"{row.outcome}: {error}".replace("|", "\\|").replace("\n", " ")
    assert row.refused is None, f"{row.name} was not refused"
    return row.outcome


def main() -> None:
    """Run all rows and write the table."""
    outcomes = {row.name: outcome(row) for row in track(ROWS)}
    parts = [_INTRODUCTION]
    for family, rows in groupby(
        sorted(ROWS, key=lambda row: _order()[row.family]), key=lambda row: row.family
    ):
        lines = [f"| {row.name} | {outcomes[row.name]} |" for row in rows]
        parts.append(
            "\n".join([f"## {family.capitalize()}", "", "| row | outcome |", "| --- | --- |", *lines, ""])
        )
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(parts), encoding="utf-8")


def _order() -> dict[str, int]:
    return {family: number for number, family in enumerate(dict.fromkeys(row.family for row in ROWS))}


if __name__ == "__main__":
    main()
