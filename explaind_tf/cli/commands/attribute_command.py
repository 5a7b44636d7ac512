"""``explaind-tf attribute``."""

from dataclasses import fields
from typing import Annotated

import typer

from explaind_tf.cli.exits import say
from explaind_tf.cli.measured import Measured
from explaind_tf.cli.opening import open_to_ask
from explaind_tf.cli.printing import Printed, print_facts
from explaind_tf.cli.shared_arguments import Rows, RunDir, Source, Workers
from explaind_tf.questions.options import Options


def attribute(
    run: RunDir,
    inputs: Source,
    *,
    rows: Rows = None,
    measured: Measured,
    options: Options,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the expected time and memory.")] = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="STORE.zarr",
            help="Write the ledger to this path or URL, block by block of inputs. The same command continues one that was "
            "interrupted.",
        ),
    ] = None,
    computed: Workers,
    printed: Printed,
) -> None:
    """Account for the change of predictions by training: print the ledger's balance and its strongest entries."""
    from explaind_tf.cli.inputs import check_source, read_inputs

    check_source(inputs)
    from explaind_tf.attribution.workers.cluster import client_of
    from explaind_tf.cli import answer_facts, tables
    from explaind_tf.cli.choosing import choose_measurement

    opened = open_to_ask(run)
    read = read_inputs(inputs, opened.manifest.inputs, rows or slice(None))
    measurement = choose_measurement(opened, read, measured)
    asked = {entry.name: getattr(options, entry.name) for entry in fields(options)}
    if plan:
        planned = opened.plan(read.x, measurement, workers=computed.workers, **asked)
        print_facts(answer_facts.plan_facts(planned), printed.as_json, lambda: [str(planned)])
        return
    with client_of(computed.workers, computed.scheduler) as client:
        ledger = opened.attribute(read.x, measurement, out=out, client=client, **asked)
    found, error = answer_facts.ledger_facts(ledger, first_row=read.first_row, top=printed.top)
    found["out"] = out
    print_facts(found, printed.as_json, lambda: tables.ledger_tables(found, top=printed.top))
    if out is not None:
        say("Ledger:", out)
    if error is not None:
        raise error
