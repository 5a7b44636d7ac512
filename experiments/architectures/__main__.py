"""Train, record and account for the architectures of keras.applications and KerasHub, as they are, with random weights.

    python -m experiments.architectures [--quick]

Each architecture has a process of its own. If it fails, its row shows the error. Those of KerasHub are left out unless it
is installed: ``pip install keras-hub``.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.architectures.accounting import QUESTIONS, TOLERANCE
from experiments.architectures.example import ASKED, BATCH
from experiments.architectures.registry import ARCHITECTURES
from experiments.command import command
from experiments.results import Findings, Table

NAME = "architectures"
# An error's whole message may hold the nodes of a graph.
_ERROR_LENGTH = 300


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    steps : int
        Training steps of each run.
    limit : int
        Seconds after which an architecture is given up.
    architectures : tuple of str
        The architectures.
    """

    steps: int = 6
    limit: int = 3600
    architectures: tuple[str, ...] = tuple(ARCHITECTURES)


QUICK = Settings(steps=2, limit=600, architectures=("MobileNet",))


def in_own_process(name: str, settings: Settings, run_dir: Path) -> dict[str, Any]:
    """Account for an architecture in a process of its own; if it fails, return its name and the error."""
    call = [
        sys.executable,
        "-m",
        "experiments.architectures.accounting",
        name,
        str(settings.steps),
        str(run_dir),
    ]
    try:
        done = subprocess.run(
            call,
            env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ},
            capture_output=True,
            text=True,
            timeout=settings.limit,
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "error": f"not done after {settings.limit} seconds"}
    lines = (done.stderr if done.returncode else done.stdout).strip().splitlines() or ["nothing was written"]
    if done.returncode:
        return {"name": name, "error": f"ended with {done.returncode}: {lines[-1]}"}
    return json.loads(lines[-1])


def row(found: dict[str, Any]) -> tuple[str | float, ...]:
    """Return the row of an architecture. What failed is a dash."""
    if "error" in found:
        return (found["name"], *["–"] * (4 + 2 * len(QUESTIONS)))
    sizes = [found[key] for key in ("parameters", "layers", "training", "verifying")]
    answers = [
        cell
        for answer in found["answers"]
        for cell in (round(answer["seconds"], 1), "–" if answer["error"] else f"{answer['residual']:.1e}")
    ]
    return (found["name"], *sizes, *answers)


def errors_of(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, question and error of what failed."""
    if "error" in found:
        return [(found["name"], "all", found["error"][:_ERROR_LENGTH])]
    return [
        (found["name"], named(axes), answer["error"][:_ERROR_LENGTH])
        for axes, answer in zip(QUESTIONS, found["answers"], strict=True)
        if answer["error"]
    ]


def named(axes: tuple[str, ...]) -> str:
    """Return the name of a question: what it splits by."""
    return "by " + " and ".join(axes) if axes else "no axes"


def columns() -> list[str]:
    """Return the headings of the table."""
    answers = [f"{named(axes)}: {what}" for axes in QUESTIONS for what in ("s", "residual")]
    return ["architecture", "parameters", "layers", "training s", "verify s", *answers]


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Account for each architecture."""
    found = [
        in_own_process(name, settings, runs_dir / str(number))
        for number, name in enumerate(settings.architectures)
    ]
    failed = [error for each in found for error in errors_of(each)]
    residuals = [
        a["residual"] for each in found for a in each.get("answers", []) if a["residual"] is not None
    ]
    asked = len(QUESTIONS) * len(found)
    tables = [
        Table(
            "Wall time with tracing, in seconds, and the largest residual as a share of the movement",
            columns(),
            [row(each) for each in found],
        )
    ]
    if failed:
        tables.append(Table("What failed", ("architecture", "question", "error"), failed))
    return Findings(
        title="Architectures: the models of keras.applications and KerasHub",
        question=(
            f"Each architecture is built with random weights, and trained for {settings.steps} steps of {BATCH} samples of "
            f"random data. Of {ASKED} inputs, the log-probability of a class or of a token is accounted for."
        ),
        conclusions=[
            f"{len(residuals)} of {asked} ledgers balance to {TOLERANCE:g}; their largest residual is "
            f"{max(residuals, default=0.0):.1e} of the movement."
        ],
        tables=tables,
        values={"architectures": found},
    )


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Account for the architectures of keras.applications and KerasHub.",
    steps=Annotated[int | None, typer.Option(help="Training steps of each run. Default: 6.")],
    limit=Annotated[
        int | None, typer.Option(help="Seconds until an architecture is given up. Default: 3600.")
    ],
    architectures=Annotated[
        list[str] | None,
        typer.Option("--architecture", help="Only this architecture; may be repeated. Default: all."),
    ],
)

if __name__ == "__main__":
    typer.run(main)
