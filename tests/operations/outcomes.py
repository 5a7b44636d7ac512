"""Outcomes of names: a process exports their functions, and another one measures them."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.operations.exporting import SETTLED
from tests.operations.measuring import MEASURED
from tests.operations.names import distinct_names

ROOT = Path(__file__).parents[2]
# How many processes measure at once. Each takes half a minute of processor time before it begins.
PROCESSES = 2


class Outcome(NamedTuple):
    """What came of a name, and what there is to say of it."""

    outcome: str
    reason: str


def all_outcomes(directory: Path) -> dict[str, Outcome]:
    """Return the outcomes of all distinct names."""
    names = distinct_names()
    parts = [names[start::PROCESSES] for start in range(PROCESSES)]
    directories = [directory / str(number) for number in range(PROCESSES)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        found = list(pool.map(outcomes_of, parts, directories))
    return {name: outcome for part in found for name, outcome in part.items()}


def outcomes_of(names: Sequence[str], directory: Path) -> dict[str, Outcome]:
    """Return the outcomes of public names."""
    directory.mkdir(parents=True, exist_ok=True)
    run_module("tests.operations.exporting", str(directory), *names)
    return measured_in(directory)


def measured_in(directory: Path) -> dict[str, Outcome]:
    """Return the outcomes of what was exported to a directory, measured in a fresh process."""
    run_module("tests.operations.measuring", str(directory))
    found = {}
    for name in (SETTLED, MEASURED):
        found |= json.loads((directory / name).read_text(encoding="utf-8"))
    return {name: Outcome(*outcome) for name, outcome in found.items()}


def run_module(module: str, *arguments: str) -> None:
    """Run a module in a process of its own."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
