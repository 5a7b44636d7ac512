"""``explaind-tf estimate``."""

from dataclasses import replace
from typing import Annotated

import typer

from explaind_tf.cli import asking, facts
from explaind_tf.cli.printing import print_facts
from explaind_tf.cli.shared_arguments import AsJson, RunDir
from explaind_tf.cli.values import to_bytes
from explaind_tf.errors import RefusedError
from explaind_tf.recording.forecast import describe
from explaind_tf.runs.estimate import estimate_from, seconds_of
from explaind_tf.runs.storage.files import free_bytes


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
    opened = asking.open_for_shell(run)
    dense = estimate_from(opened, steps, samples)
    if disk_budget is None:
        found = replace(dense, every=every or opened.manifest.every)
    else:
        if every is not None:
            raise ValueError("Give --every or --disk-budget, not both.")
        found = dense.fit_into(disk_budget)
    free = free_bytes(opened.run_dir)
    print_facts(
        facts.estimate_facts(opened, found, free),
        as_json,
        lambda: [f"every={found.every}: {describe(found, free, seconds_of(opened))}."],
    )
    if free is not None and found.total > free:
        raise RefusedError(
            f"{steps} steps with every={found.every} do not fit on the disk that {run} is on. Free some, or give "
            f"--disk-budget to find how far apart keyframes must be."
        )
