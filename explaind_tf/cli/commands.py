"""The commands."""

import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from explaind_tf.analysis import fidelity
from explaind_tf.cli import asking, facts, tables
from explaind_tf.cli.exits import EXIT_CODES, plain_errors, say
from explaind_tf.cli.inputs import check_source, read_inputs
from explaind_tf.cli.values import Measure, OutputsAre, StepOf, to_bytes, to_names, to_slice
from explaind_tf.constants import VERSION
from explaind_tf.errors import RefusedError, RunFormatError, UnbalancedLedgerError
from explaind_tf.event_file import check_installed
from explaind_tf.recording.forecast import describe
from explaind_tf.report import Asked, account_for, write_report
from explaind_tf.report.tensorboard import write_tensorboard
from explaind_tf.runs.estimate import estimate_from, seconds_of
from explaind_tf.runs.storage.files import free_bytes

app = typer.Typer(no_args_is_help=True, add_completion=False, epilog=EXIT_CODES)

RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Directory that a PathLogger wrote, or its URL.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
Source = Annotated[
    str,
    typer.Option(
        "--inputs",
        metavar="FILE|tfds:NAME/SPLIT",
        help="An .npz with x, or the names of the model's inputs (explaind-tf info shows them), and labels y; an .npy of x "
        "alone; or a TFDS split. As the model was given them in training, scaling included.",
    ),
]
Rows = Annotated[
    slice | None,
    typer.Option(parser=to_slice, metavar="A:B", help="Rows of the inputs; by default all."),
]
Tolerance = Annotated[
    float,
    typer.Option(help="Largest residual, as a share of how far an input's outputs went during training."),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        parser=to_bytes,
        metavar="SIZE",
        help="What may be used beside the ledger, as 4GB; by default half of the memory.",
    ),
]
Top = Annotated[int, typer.Option(min=1, help="Most samples, layers and steps to show of each.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"explaind-tf {VERSION}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    """Account for the predictions of a Keras model, by training sample, layer and step."""


@app.command(epilog=EXIT_CODES)
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
    with plain_errors():
        from explaind_tf.demo import run_demo  # its models and data, which no other command needs

        try:
            report = run_demo(out_dir, seed=seed, console=console)
        except FileExistsError as error:
            raise FileExistsError(f"{error} For the demo: pass another directory with --out.") from error
    console.print(
        f"Report: {escape(str(report))}\nRuns:   {escape(str(out_dir))}", highlight=False, soft_wrap=True
    )


@app.command(epilog=EXIT_CODES)
def info(run: RunDir, as_json: AsJson = False) -> None:
    """Say what was recorded, what can be asked, and what inputs look like."""
    with plain_errors():
        found = facts.run_facts(asking.open_for_shell(run))
        _print(found, as_json, lambda: [tables.run_table(found)])


@app.command(epilog=EXIT_CODES)
def verify(
    run: RunDir,
    replay: Annotated[
        bool,
        typer.Option(
            help="Whether to take each step anew from the recorded batch, beside reading every byte."
        ),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check every byte that was recorded, and that each step follows from its batch."""
    found: dict[str, Any] = {"run": str(run), "replayed": replay, "status": "fine"}
    with plain_errors():
        try:
            opened = asking.open_for_shell(run)
            found |= {"run_id": opened.run_id, "steps": len(opened.steps), "complete": opened.is_complete}
            opened.verify(replay=replay)
        except (RunFormatError, UnbalancedLedgerError) as error:
            found["status"] = "damaged" if isinstance(error, RunFormatError) else "unbalanced"
            if as_json:
                typer.echo(json.dumps(found | {"message": str(error)}))
            raise
    how = "every byte read, every step replayed" if replay else "every byte read, no step replayed"
    _print(found, as_json, lambda: [f"{run} is fine: {found['steps']:,} steps; {how}."])


@app.command(epilog=EXIT_CODES)
def estimate(
    run: RunDir,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the run that is to be recorded.")],
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps from one keyframe to the next. Default: that of the run.")
    ] = None,
    disk_budget: Annotated[
        int | None,
        typer.Option(
            parser=to_bytes, metavar="SIZE", help='Find the closest keyframes that fit, as every="auto" does.'
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Distinct samples that it will use. Default: those of the run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a long recording will take, from a short one of the same model and data."""
    with plain_errors():
        opened = asking.open_for_shell(run)
        dense = estimate_from(opened, steps, samples)
        if disk_budget is None:
            found = replace(dense, every=every or opened.manifest.every)
        else:
            if every is not None:
                raise ValueError("Give --every or --disk-budget, not both.")
            found = dense.fit_into(disk_budget)
        free = free_bytes(opened.run_dir)
        _print(
            facts.estimate_facts(opened, found, free),
            as_json,
            lambda: [f"every={found.every}: {describe(found, free, seconds_of(opened))}."],
        )
        if free is not None and found.total > free:
            raise RefusedError(
                f"{steps} steps with every={found.every} do not fit on the disk that {run} is on. Free some, or give "
                f"--disk-budget to find how far apart keyframes must be."
            )


@app.command(epilog=EXIT_CODES)
def attribute(
    run: RunDir,
    inputs: Source,
    rows: Rows = None,
    measure: Annotated[
        Measure, typer.Option(help="What to account for. All but outputs need labels.")
    ] = Measure.OUTPUTS,
    axes: Annotated[
        str,
        typer.Option(help="What to split by, of sample, token, step, layer, parameter; separated by commas."),
    ] = "",
    layers: Annotated[
        str | None, typer.Option(help="Layers to tell apart, separated by commas; the rest is one entry.")
    ] = None,
    steps: Annotated[
        slice | None,
        typer.Option(parser=to_slice, metavar="A:B", help="Steps to account for; by default all."),
    ] = None,
    step_of: Annotated[
        StepOf,
        typer.Option(help="With samples: the step that used the sample, or that in which it took effect."),
    ] = StepOf.USE,
    outputs_are: Annotated[
        OutputsAre | None, typer.Option(help="What the model returns. Default: logits, checked.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(help="Key or position of the output that is measured, if there are several.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Keras' name of the loss that --measure loss means, with its default options. Default: that of training."
        ),
    ] = None,
    tolerance: Tolerance = 1e-3,
    max_nodes: Annotated[
        int, typer.Option(min=1, help="Most quadrature nodes of an input in a step.")
    ] = 2187,
    memory_limit: MemoryLimit = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it would take.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="STORE.zarr",
            help="Write the ledger there, a path or a URL, block by block of inputs; the same command goes on where one was "
            "interrupted.",
        ),
    ] = None,
    top: Top = 5,
    as_json: AsJson = False,
) -> None:
    """Account for the change of predictions by training: the ledger's balance, and what stands out in it."""
    with plain_errors():
        check_source(inputs)

        kept = to_names(axes)
        if "group" in kept:
            raise ValueError(
                'Groups take a label of each training sample: run.attribute(axes=("group",), groups=…).'
            )
        opened = asking.open_for_shell(run)
        read = read_inputs(inputs, opened.manifest.inputs, rows or slice(None))
        measurement = asking.choose_measurement(
            opened, read, measure, outputs_are=outputs_are, output=output, loss=loss
        )
        options: dict[str, Any] = {
            "layers": None if layers is None else to_names(layers),
            "steps": steps,
            "step_of": step_of.value,
            "tolerance": tolerance,
            "max_nodes": max_nodes,
            "memory_limit": memory_limit,
        }
        if plan:
            planned = opened.plan(read.x, measurement, kept, **options)
            _print(facts.plan_facts(planned), as_json, lambda: [str(planned)])
            return
        ledger = opened.attribute(read.x, measurement, kept, out=out, **options)
        found, error = facts.ledger_facts(ledger, first_row=read.first_row, top=top)
        found["out"] = out
        _print(found, as_json, lambda: tables.ledger_tables(found, top=top))
        if out is not None:
            say("Ledger:", out)
        if error is not None:
            raise error


@app.command(epilog=EXIT_CODES)
def report(
    run: RunDir,
    inputs: Source,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="File to write; replaced if it exists.")],
    rows: Rows = None,
    shown: Annotated[int, typer.Option(min=1, help="Inputs shown with their training samples.")] = 4,
    tolerance: Tolerance = 1e-3,
    memory_limit: MemoryLimit = None,
    tensorboard: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Log directory of TensorBoard, to write the same numbers and pictures to."
        ),
    ] = None,
    top: Top = 5,
    as_json: AsJson = False,
) -> None:
    """Write an HTML report about a classifier: does it balance, when, where and from which data did it learn."""
    with plain_errors():
        check_source(inputs)
        if not out.resolve().parent.is_dir():
            raise FileNotFoundError(f"There is no directory {out.parent} to write {out.name} to.")
        if tensorboard is not None:
            check_installed()

        opened = asking.open_for_shell(run)
        read = read_inputs(inputs, opened.manifest.inputs, rows or slice(None))
        section = account_for(
            opened,
            Asked(read.x, read.y, first_row=read.first_row, shown=shown, top=top),
            title=opened.run_dir.resolve().name,
            introduction="A recorded run, and inputs that its predictions are accounted for.",
            tolerance=tolerance,
            memory_limit=memory_limit,
        )
        write_report(out, [section])
        if tensorboard is not None:
            write_tensorboard(tensorboard, section)
        found = fidelity(section.balance)
        summary = {
            "report": out,
            "run_id": opened.run_id,
            "agreement": found.agreement,
            "mean_kl": found.mean_kl,
        }
        summary |= {"movement": found.movement, "residual": found.residual, "terms": dict(found.terms)}
        _print(summary, as_json, lambda: [f"Report: {out}"])


def _print(found: dict[str, Any], as_json: bool, shown: Any) -> None:
    """Print facts on stdout, as JSON or as a person wants to see them."""
    if as_json:
        typer.echo(json.dumps(facts.plain(found), allow_nan=False))
        return
    console = Console()
    for part in shown():
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)
