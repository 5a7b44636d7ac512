"""``explaind-tf verify``."""

import json
from typing import Annotated, Any

import typer

from explaind_tf.cli.opening import open_to_ask
from explaind_tf.cli.printing import print_facts
from explaind_tf.cli.shared_arguments import AsJson, RunDir
from explaind_tf.errors import RunFormatError, UnbalancedLedgerError
from explaind_tf.levels import PATH


def verify(
    run: RunDir,
    replay: Annotated[
        bool,
        typer.Option(help="Whether to replay each step from its recorded batch, besides reading every byte."),
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Check every byte that was recorded, and that each step follows from its batch."""
    found: dict[str, Any] = {"run": str(run), "replayed": replay, "status": "fine"}
    try:
        opened = open_to_ask(run)
        found |= {"run_id": opened.run_id, "steps": len(opened.steps), "complete": opened.is_complete}
        opened.verify(replay=replay)
    except (RunFormatError, UnbalancedLedgerError) as error:
        found["status"] = "damaged" if isinstance(error, RunFormatError) else "unbalanced"
        if as_json:
            typer.echo(json.dumps(found | {"message": str(error)}))
        raise
    # The path of the weights alone leaves nothing to replay.
    is_replayed = replay and opened.level != PATH
    how = "every byte read, every step replayed" if is_replayed else "every byte read, no step replayed"
    print_facts(found, as_json, lambda: [f"{run} is fine: {found['steps']:,} steps; {how}."])
