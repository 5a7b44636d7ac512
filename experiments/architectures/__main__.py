"""Train, record and account for the architectures of keras.applications and KerasHub, as they are, with random weights.

    python -m experiments.architectures [--quick]

Each architecture has a process of its own. If it fails, its row shows the error. Those of KerasHub need the package
``keras-hub``, which the extra ``test`` installs. All together take hours: with ``--keep DIR`` each row is kept in a
directory as soon as it is found, and a second call makes only those that are missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.architectures.accounting import QUESTIONS, TOLERANCE
from experiments.architectures.example import ASKED, BATCH, IMAGE
from experiments.architectures.processes import kept_or_found
from experiments.architectures.registry import NAMES
from experiments.command import command
from experiments.results import Findings, Table

NAME = "architectures"
# An error's whole message may hold the nodes of a graph.
_ERROR_LENGTH = 300
_SHORT_COMMIT = 7


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    steps : int
        Training steps of each run.
    limit : int
        Seconds after which an architecture is given up.
    keep : str
        Directory of the rows that were found; empty for none that stays.
    architectures : tuple of str
        The architectures.
    """

    steps: int = 6
    limit: int = 7200
    keep: str = ""
    architectures: tuple[str, ...] = NAMES


QUICK = Settings(steps=2, limit=600, architectures=("MobileNet",))


def row(found: dict[str, Any]) -> tuple[str | float, ...]:
    """Return the row of an architecture. What is not known is a dash."""
    sizes = [found.get(key, "–") for key in ("parameters", "layers")]
    runs = [_time(found.get(key)) for key in ("training", "verifying")]
    answers = [cell for answer in found["answers"] for cell in _answer_cells(answer)]
    missing = ["–"] * (2 * (len(QUESTIONS) - len(found["answers"])))
    return (found["name"], *sizes, *runs, *answers, *missing, found["commit"][:_SHORT_COMMIT])


def errors_of(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return name, question and error of what failed."""
    failed = [
        (found["name"], named(axes), answer["error"][:_ERROR_LENGTH])
        for axes, answer in zip(QUESTIONS, found["answers"], strict=False)
        if answer["error"]
    ]
    if "error" in found:
        missing = QUESTIONS[len(found["answers"]) :]
        what = named(missing[0]) if missing and "training" in found else "training"
        failed.append((found["name"], what, found["error"][:_ERROR_LENGTH]))
    return failed


def named(axes: tuple[str, ...]) -> str:
    """Return the name of a question: what it splits by."""
    return "by " + " and ".join(axes) if axes else "no axes"


def columns() -> list[str]:
    """Return the headings of the table."""
    answers = [f"{named(axes)}: {what}" for axes in QUESTIONS for what in ("s", "residual")]
    return ["architecture", "parameters", "layers", "training s", "verify s", *answers, "commit"]


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Account for each architecture."""
    keep = Path(settings.keep) if settings.keep else runs_dir / "rows"
    found = [
        kept_or_found(name, settings.steps, settings.limit, runs_dir / str(number), keep)
        for number, name in enumerate(settings.architectures)
    ]
    failed = [error for each in found for error in errors_of(each)]
    residuals = [a["residual"] for each in found for a in each["answers"] if a["residual"] is not None]
    tables = [
        Table(
            "Wall time and, in brackets, CPU time of all threads, in seconds, with tracing; the largest residual as a share "
            "of the movement; the commit that made the row",
            columns(),
            [row(each) for each in found],
        )
    ]
    if failed:
        tables.append(Table("What failed", ("architecture", "question", "error"), failed))
    height, width, _ = IMAGE
    return Findings(
        title="Architectures: the models of keras.applications and KerasHub",
        question=(
            "Each architecture is built with random weights: those of `keras.applications` at the smallest width that they "
            f"offer, those of KerasHub in tiny configurations. It is trained for {settings.steps} steps of {BATCH} random "
            f"samples; images have {height} × {width} pixels. Of {ASKED} inputs, the log-probability of a class or of a "
            "token is accounted for. Other work ran on the machine, so wall time is longer than on an idle one."
        ),
        conclusions=[
            f"{len(residuals)} of {len(QUESTIONS) * len(found)} ledgers balance to {TOLERANCE:g}; their largest residual is "
            f"{max(residuals, default=0.0):.1e} of the movement.",
            *_remarks(settings),
        ],
        tables=tables,
        values={"architectures": found},
    )


def _remarks(settings: Settings) -> list[str]:
    """Return what the table does not show of itself."""
    left_out = [name for name in NAMES if name not in settings.architectures]
    remarks = [f"Not run: {'; '.join(left_out)}."] if left_out else []
    if settings.keep:
        remarks.append(
            "Rows that were kept of earlier calls were not made again. The time below is that of the last call."
        )
    return remarks


def _answer_cells(answer: dict[str, Any]) -> tuple[str, str]:
    return _time(answer["spent"]), "–" if answer["error"] else f"{answer['residual']:.1e}"


def _time(spent: dict[str, float] | None) -> str:
    return "–" if spent is None else f"{spent['wall']:.0f} ({spent['cpu']:.0f})"


main = command(
    NAME,
    experiment,
    full=Settings(),
    quick=QUICK,
    help="Account for the architectures of keras.applications and KerasHub.",
    steps=Annotated[int | None, typer.Option(help="Training steps of each run. Default: 6.")],
    limit=Annotated[
        int | None, typer.Option(help="Seconds until an architecture is given up. Default: 7200.")
    ],
    keep=Annotated[
        str | None,
        typer.Option(help="Directory of rows: those that are there are not made again. Default: none."),
    ],
    architectures=Annotated[
        list[str] | None,
        typer.Option("--architecture", help="Only this architecture; may be repeated. Default: all."),
    ],
)

if __name__ == "__main__":
    typer.run(main)
