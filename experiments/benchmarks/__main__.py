"""Measure the cost of attribution and recording, as ratios within one invocation.

python -m experiments.benchmarks [--quick] [--row N ...]
"""

import dataclasses
import datetime
import json
import math
import os
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import typer
from rich.console import Console
from rich.table import Table

from experiments.benchmarks.rows import ROWS, Check, Row
from experiments.benchmarks.runner import PartError, Runner
from experiments.benchmarks.settings import QUICK, Settings, with_steps

RESULT_FILE = "benchmarks.json"


def main(
    quick: Annotated[
        bool, typer.Option("--quick", help="Every row on tiny models, in one process; bars do not apply.")
    ] = False,
    row: Annotated[list[int] | None, typer.Option(help="Only this row; may be repeated.")] = None,
    steps: Annotated[
        int | None, typer.Option(help="Cut recorded runs to this many steps, for a first look.")
    ] = None,
    repeats: Annotated[int | None, typer.Option(help="Repeats of each timing. Default: 3.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Directory. Default: runs/benchmarks-<date>-<time>.")
    ] = None,
) -> None:
    """Measure the rows and compare them with their bars."""
    chosen = sorted(set(row or ROWS))
    if unknown := [number for number in chosen if number not in ROWS]:
        raise typer.BadParameter(f"there is no row {unknown[0]}; the rows are {min(ROWS)} to {max(ROWS)}.")
    settings = QUICK if quick else Settings()
    if steps is not None:
        settings = with_steps(settings, steps)
    if repeats is not None:
        settings = dataclasses.replace(settings, repeats=repeats)
    out_dir = out or Path("runs") / f"benchmarks-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    out_dir.mkdir(parents=True, exist_ok=True)
    console = Console()
    runner = Runner(out_dir, isolated=settings.isolated)
    bars_apply = not quick and steps is None
    result: dict[str, Any] = {
        "experiment": "benchmarks",
        "machine": runner.run("machine"),
        "settings": dataclasses.asdict(settings),
        "bars_apply": bars_apply,
        "rows": [],
    }
    failed = False
    table = _table(bars_apply)
    for number in chosen:
        start = time.perf_counter()
        try:
            measured = ROWS[number](number, settings, runner)
            found = _as_json(measured) | {"seconds_in_all": round(time.perf_counter() - start, 1)}
            _add(table, measured, bars_apply)
        except PartError as error:  # a failed row must not lose the results of the others
            found, failed = {"number": number, "error": str(error)}, True
            console.print(f"Row {number}: {error}", markup=False, highlight=False)
            table.add_row(str(number), "failed, see above")
        result["rows"].append(found)
        (out_dir / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n")
    machine = result["machine"]
    console.print(table)
    console.print(
        f"{machine['cores']} cores, {machine['gemm_gflops_float32']:g} GFLOP/s (float32 GEMM), TensorFlow "
        f"{machine['tensorflow']}. Result: {out_dir / RESULT_FILE}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if failed:
        raise typer.Exit(1)


def _table(bars_apply: bool) -> Table:
    table = Table(title=None if bars_apply else "Sizes cut down: the bars are not stated for these")
    for column, justify in (
        ("#", "right"),
        ("work", "left"),
        ("figure", "left"),
        ("measured", "right"),
        ("bar", "right"),
        ("met", "left"),
        ("peak MB", "right"),
    ):
        table.add_column(column, justify=justify)
    return table


def _add(table: Table, row: Row, bars_apply: bool) -> None:
    """Add a line for each figure of a row; what they have in common is in the first line."""
    peaks = "\n".join(
        f"{value:,.0f}" if len(row.peak_mb) == 1 else f"{name} {value:,.0f}"
        for name, value in row.peak_mb.items()
    )
    work = f"{row.work}\n[dim]{row.note}[/dim]" if row.note else row.work
    table.add_row(
        str(row.number),
        work,
        "\n".join(check.what for check in row.checks),
        "\n".join(_number(check.measured) for check in row.checks),
        "\n".join(_bar(check) for check in row.checks),
        "\n".join(_met(check) for check in row.checks) if bars_apply else "",
        peaks,
        end_section=True,
    )


def _met(check: Check) -> str:
    return {None: "", True: "yes", False: "[bold]no[/bold]"}[check.passed]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _bar(check: Check) -> str:
    return "" if math.isnan(check.bar) else f"{'≥' if check.at_least else '≤'} {_number(check.bar)}"


def _as_json(row: Row) -> dict[str, Any]:
    """Return a row as JSON values; JSON has no NaN."""
    checks = [
        {
            **dataclasses.asdict(check),
            "bar": None if math.isnan(check.bar) else check.bar,
            "passed": check.passed,
        }
        for check in row.checks
    ]
    return {**dataclasses.asdict(row), "checks": checks}


if __name__ == "__main__":
    typer.run(main)
