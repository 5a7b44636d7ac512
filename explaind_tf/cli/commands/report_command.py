"""``explaind-tf report``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from explaind_tf.cli.opening import open_to_ask
from explaind_tf.cli.option_groups import Only
from explaind_tf.cli.printing import Printed, print_facts
from explaind_tf.cli.shared_arguments import Rows, RunDir, Source, Validation
from explaind_tf.questions.options import Options


@dataclass(frozen=True, kw_only=True)
class _Contents(Validation):
    """The options that say what the report shows.

    Attributes
    ----------
    shown : int
        How many inputs to show with their training samples.
    counterfactual : bool
        Whether to ask how predictions would change without samples.
    """

    shown: int = field(default=4, metadata={"help": "Number of inputs to show with their training samples."})
    counterfactual: bool = field(
        default=False,
        metadata={
            "help": "Also ask how the predictions for these inputs would change without samples: a sweep of its own."
        },
    )


def report(
    run: RunDir,
    inputs: Source,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE.html", help="File to write; replaced if it exists.")],
    rows: Rows = None,
    contents: _Contents,
    options: Annotated[Options, Only("tolerance", "memory_limit")],
    tensorboard: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Log directory of TensorBoard for the same numbers and pictures."),
    ] = None,
    printed: Printed,
) -> None:
    """Write an HTML report about a classifier: whether its ledger balances, when, where and from which data it learnt."""
    from explaind_tf.cli.inputs import check_source, read_inputs

    check_source(inputs)
    if not out.resolve().parent.is_dir():
        raise FileNotFoundError(
            f"There is no directory {out.parent} to write {out.name} to. Create it, or pass another --out."
        )
    from explaind_tf.analysis import fidelity
    from explaind_tf.event_file import check_installed
    from explaind_tf.report import Asked, account_for, write_report
    from explaind_tf.report.tensorboard import write_tensorboard

    if tensorboard is not None:
        check_installed()
    opened = open_to_ask(run)
    read = read_inputs(inputs, opened.manifest.inputs, rows or slice(None))
    asked = Asked(
        read.x,
        read.y,
        first_row=read.first_row,
        shown=contents.shown,
        top=printed.top,
        counterfactual=contents.counterfactual,
        retrainings=contents.validate,
        share=contents.share,
    )
    section = account_for(
        opened,
        asked,
        title=opened.run_dir.resolve().name,
        introduction="An account of what a recorded training did to the predictions for some inputs.",
        tolerance=options.tolerance,
        memory_limit=options.memory_limit,
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
    print_facts(summary, printed.as_json, lambda: [f"Report: {out}"])
