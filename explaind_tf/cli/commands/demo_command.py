"""``explaind-tf demo``."""

import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from explaind_tf.constants import MANIFEST_FILE


def demo(
    out: Annotated[
        Path | None,
        typer.Option(
            help="New directory for the recorded runs and report.html. Default: runs/demo-<date>-<time>."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, data split and batch order.")] = 0,
) -> None:
    """Train two small models, account for their predictions and write an HTML report, in a minute or two."""
    console = Console()
    out_dir = out or Path("runs") / f"demo-{datetime.datetime.now():%Y%m%d-%H%M%S}"
    from explaind_tf.demo import run_demo  # no other command needs its models and data

    try:
        report = run_demo(out_dir, seed=seed, console=console)
    except FileExistsError as error:
        raise FileExistsError(f"{error} For the demo, pass another directory with --out.") from error
    console.print(
        f"Report: {escape(str(report))}\nRuns:   {escape(str(out_dir))}", highlight=False, soft_wrap=True
    )
    runs = sorted(path for path in out_dir.iterdir() if (path / MANIFEST_FILE).exists())
    for run in runs:
        console.print(
            f"To look further: explaind-tf explore {escape(str(run))}", highlight=False, soft_wrap=True
        )
