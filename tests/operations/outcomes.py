"""Outcomes of names: a process exports their functions, and another one measures them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.operations.exporting import SETTLED
from tests.operations.measuring import MEASURED
from tests.operations.names import distinct_names

ROOT = Path(__file__).parents[2]
# How many names are measured together.
CHUNK = 60


class Outcome(NamedTuple):
    """What came of a name, and what there is to say of it."""

    outcome: str
    reason: str


def chunks() -> list[list[str]]:
    """Return the distinct names in chunks, each with names of all modules."""
    names = distinct_names()
    count = -(-len(names) // CHUNK)
    return [names[start::count] for start in range(count)]


def outcomes_of(names: Sequence[str], directory: Path) -> dict[str, Outcome]:
    """Return the outcomes of public names."""
    directory.mkdir(parents=True, exist_ok=True)
    _run("tests.operations.exporting", str(directory), *names)
    return measured_in(directory)


def measured_in(directory: Path) -> dict[str, Outcome]:
    """Return the outcomes of what was exported to a directory, measured in a fresh process."""
    _run("tests.operations.measuring", str(directory))
    found = {}
    for name in (SETTLED, MEASURED):
        found |= json.loads((directory / name).read_text(encoding="utf-8"))
    return {name: Outcome(*outcome) for name, outcome in found.items()}


def _run(module: str, *arguments: str) -> None:
    """Run a module in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
