"""``explaind-tf counterfactual``."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from explaind_tf.cli.exits import say
from explaind_tf.cli.measured import Measured
from explaind_tf.cli.opening import open_to_ask
from explaind_tf.cli.option_groups import Only
from explaind_tf.cli.printing import Printed, print_facts
from explaind_tf.cli.shared_arguments import Rows, RunDir, Source, Validation, Workers
from explaind_tf.errors import RefusedError
from explaind_tf.questions.options import Options

if TYPE_CHECKING:
    import xarray as xr

    from explaind_tf.attribution import Run


@dataclass(frozen=True, kw_only=True)
class _Worth(Validation):
    """The options that say how the worth of an answer is measured.

    Attributes
    ----------
    smoothness : bool
        Whether to measure how smooth training is.
    """

    smoothness: bool = field(
        default=False, metadata={"help": "Also measure how smooth training is: six trainings."}
    )


def counterfactual(
    run: RunDir,
    inputs: Source,
    *,
    rows: Rows = None,
    measured: Measured,
    options: Annotated[Options, Only("memory_limit", "dtype")],
    worth: _Worth,
    plan: Annotated[bool, typer.Option("--plan", help="Only print the expected time and memory.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.zarr", help="Write the answer to this path, which must not exist."),
    ] = None,
    computed: Workers,
    printed: Printed,
) -> None:
    """Say how final predictions would change without training samples: print the samples on which they depend most."""
    from explaind_tf.cli.inputs import check_source, read_inputs

    check_source(inputs)
    if worth.validate:
        from explaind_tf.ledgers.response_accessor import check_draws

        check_draws(worth.validate, worth.share)
    if out is not None and out.exists():
        raise FileExistsError(f"{out} exists. Pass another --out, or delete it.")

    from explaind_tf.attribution.workers.cluster import client_of
    from explaind_tf.cli import answer_facts, tables
    from explaind_tf.cli.choosing import choose_measurement

    opened = open_to_ask(run)
    read = read_inputs(inputs, opened.manifest.inputs, rows or slice(None))
    measurement = choose_measurement(opened, read, measured)
    asked: dict[str, Any] = {"memory_limit": options.memory_limit, "dtype": options.dtype}
    if plan:
        planned = opened.plan_counterfactual(read.x, measurement, **asked)
        print_facts(answer_facts.plan_facts(planned), printed.as_json, lambda: [str(planned)])
        return
    with client_of(computed.workers, computed.scheduler) as client:
        answer = opened.counterfactual(read.x, measurement, client=client, **asked)
    found = answer_facts.response_facts(answer, first_row=read.first_row, top=printed.top)
    known, refused = _measure(worth, opened, answer)
    found |= known | {"out": out}
    if out is not None:
        answer.to_zarr(out, mode="w-", consolidated=False)
    print_facts(found, printed.as_json, lambda: tables.response_tables(found))
    if out is not None:
        say("Answer:", str(out))
    if refused is not None:
        raise refused


def _measure(worth: _Worth, run: "Run", answer: "xr.Dataset") -> tuple[dict[str, Any], RefusedError | None]:
    """Return what trainings without some samples say of an answer. If they are refused, the answer is still of use."""
    from explaind_tf.cli.answer_facts import smoothness_facts, verdict_facts

    found: dict[str, Any] = {"verdict": None, "smoothness": None}
    try:
        if worth.validate:
            found["verdict"] = verdict_facts(answer.explaind.validate(worth.validate, worth.share))
        if worth.smoothness:
            found["smoothness"] = smoothness_facts(run.smoothness(share=worth.share))
    except RefusedError as refused:
        return found, refused
    return found, None
