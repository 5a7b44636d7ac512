"""``explaind-tf estimate``."""

from dataclasses import replace
from typing import Annotated

import typer

from explaind_tf.cli.opening import open_to_read
from explaind_tf.cli.printing import print_facts
from explaind_tf.cli.shared_arguments import AsJson, RunDir
from explaind_tf.cli.values import to_bytes
from explaind_tf.errors import RefusedError


def estimate(
    run: RunDir,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the run to be recorded.")],
    every: Annotated[
        int | None, typer.Option(min=1, help="Steps from one keyframe to the next. Default: as in RUN.")
    ] = None,
    disk_budget: Annotated[
        int | None,
        typer.Option(
            parser=to_bytes,
            metavar="SIZE",
            help='Find the smallest distance of keyframes that fits, as every="auto" does.',
        ),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(min=1, help="Distinct samples that the run will use. Default: as many as in RUN."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Estimate the disk space and time of a long recording from a short one of the same model and data."""
    from explaind_tf.cli.run_facts import estimate_facts
    from explaind_tf.runs.estimate import describe, estimate_from, seconds_of
    from explaind_tf.runs.storage.files import free_bytes

    opened = open_to_read(run)
    dense = estimate_from(opened, steps, samples)
    if disk_budget is None:
        found = replace(dense, every=every or opened.manifest.every)
    else:
        if every is not None:
            raise ValueError(
                "--every and --disk-budget were both given. Pass one, not both: --disk-budget finds the value of --every."
            )
        found = dense.fit_into(disk_budget)
    free = free_bytes(opened.run_dir)
    print_facts(
        estimate_facts(opened, found, free),
        as_json,
        lambda: [f"every={found.every}: {describe(found, free, seconds_of(opened))}."],
    )
    if free is not None and found.total > free:
        raise RefusedError(
            f"{steps} steps with every={found.every} take {found.total:,} bytes and do not fit on the disk of {run}, where "
            f"{free:,} bytes are free. Free some, or pass --disk-budget to find the distance of keyframes that fits."
        )
