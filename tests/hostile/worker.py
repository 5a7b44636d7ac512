"""A process that tries mutants, one for each line of its input. What comes of each is a line of JSON."""

import json
import os
import sys
from pathlib import Path

from tests.hostile.graph_mutations import GRAPH_CHANGES
from tests.hostile.mutations import CHANGES, Mutant, mutant
from tests.hostile.probe import Probe
from tests.hostile.run_files import RunFiles

# Graphs take longer than all else: their loading, and the compilation of what is asked of them.
SHARE_OF_GRAPHS = 0.1
_ALL = CHANGES | {
    change: weight * SHARE_OF_GRAPHS * sum(CHANGES.values()) / sum(GRAPH_CHANGES.values())
    for change, weight in GRAPH_CHANGES.items()
}


def nightly_mutant(files: RunFiles, seed: int) -> Mutant:
    """Return the mutant of a number, of all kinds."""
    return mutant(files, seed, _ALL)


def serve(run_dir: Path) -> None:
    """Answer each line of a number and the name of a mutant with one of what came of it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    probe = Probe(run_dir)
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        made = nightly_mutant(probe.files, int(line))
        print(json.dumps({"kind": made.kind, "place": made.place}), file=answers)
        before = _start_of_peak()
        outcome = probe.outcome(made)
        grown = _peak_bytes() - before
        print(json.dumps({"outcome": outcome.name, "message": outcome.message, "grown": grown}), file=answers)


def _start_of_peak() -> int:
    """Begin to measure the largest memory anew, and return the present one. Linux only; elsewhere nothing is measured."""
    reset = Path("/proc/self/clear_refs")
    if reset.exists():
        reset.write_text("5")
    return _peak_bytes()


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)
