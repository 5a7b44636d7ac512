"""``python -m tests.hostile --mutants 20000``: changed runs, tried in processes whose time and memory are watched.

A table says what came of each kind of change, a second one where only the author can answer. It exits with 1 if the package
answered a changed run with a traceback, a hang, a crash, too much memory, or another answer that something in the run
contradicts. ``--only 123`` tries one mutant again, in this process, and keeps its files.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from tests.hostile.probe import AUTHORS, GOOD, REFUSED, SAME, TOLD, Probe
from tests.hostile.runs import RUNS
from tests.hostile.watch import Found, tried
from tests.hostile.worker import nightly_mutant, serve


def main() -> int:
    """Return 1 if an outcome is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--log", type=Path, help="file for a line of JSON for each mutant with another answer, or with none"
    )
    parser.add_argument("--only", type=int, help="number of one mutant, to try it here and keep its files")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(arguments.worker)
        return 0
    with tempfile.TemporaryDirectory(prefix="hostile-runs-") as directory:
        run_dirs = [Path(directory) / name for name in RUNS]
        for run_dir, record in zip(run_dirs, RUNS.values(), strict=True):
            record(run_dir)
        if arguments.only is not None:
            return _only(run_dirs[arguments.only % len(run_dirs)], arguments.only)
        return _all(run_dirs, arguments)


def _only(run_dir: Path, seed: int) -> int:
    probe = Probe(run_dir)
    made = nightly_mutant(probe.files, seed)
    kept = Path(tempfile.mkdtemp(prefix=f"hostile-{seed}-")) / "run"
    made.files.write(kept)
    print(f"{made.kind}, {made.place}: {kept}")
    outcome = probe.outcome(made)
    print(f"{outcome.name}: {outcome.message}")
    return int(outcome.name not in GOOD)


def _all(run_dirs: list[Path], arguments: argparse.Namespace) -> int:
    table: Counter[tuple[str, str]] = Counter()
    words: Counter[str] = Counter()
    bad: list[Found] = []
    begin, slowest, largest = time.monotonic(), 0.0, 0
    for count, found in enumerate(
        tried(run_dirs, arguments.mutants, arguments.first, arguments.workers), start=1
    ):
        table[found.kind, found.outcome] += 1
        slowest, largest = max(slowest, found.seconds), max(largest, found.grown)
        if found.outcome == AUTHORS:
            words[found.place] += 1
        if found.outcome not in GOOD:
            bad.append(found)
            print(f"{found.seed}: {found.outcome}, {found.kind}, {found.place}: {found.message}", flush=True)
        if arguments.log and found.outcome not in (SAME, REFUSED, TOLD):
            with arguments.log.open("a") as log:
                print(json.dumps(asdict(found)), file=log)
        if count % 500 == 0:
            print(
                f"{count} of {arguments.mutants}, {time.monotonic() - begin:.0f} s, {len(bad)} bad",
                flush=True,
            )
    _print(table)
    print("\n| where only the author can answer | mutants |\n|---|---|")
    for place, mutants in words.most_common():
        print(f"| {place} | {mutants} |")
    print(
        f"{table.total()} mutants in {time.monotonic() - begin:.0f} s; slowest {slowest:.1f} s, largest growth "
        f"{largest / 1e6:.0f} MB; {len(bad)} bad"
    )
    return int(bool(bad))


def _print(table: "Counter[tuple[str, str]]") -> None:
    outcomes = sorted({outcome for _, outcome in table}, key=lambda name: (name not in GOOD, name))
    print("| change |", " | ".join(outcomes), "|")
    print("|---|", "---|" * len(outcomes), sep="")
    for kind in sorted({kind for kind, _ in table}):
        print(f"| {kind} |", " | ".join(str(table[kind, outcome]) for outcome in outcomes), "|")


if __name__ == "__main__":
    raise SystemExit(main())
