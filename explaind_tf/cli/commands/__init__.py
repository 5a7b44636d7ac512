"""The commands, one in each file; a new one needs a row here.

A command imports what needs TensorFlow, xarray or pandas when it runs, so that the shell answers at once where it can.
"""

from typing import Annotated

import typer

from explaind_tf.cli.commands.attribute_command import attribute
from explaind_tf.cli.commands.counterfactual_command import counterfactual
from explaind_tf.cli.commands.demo_command import demo
from explaind_tf.cli.commands.estimate_command import estimate
from explaind_tf.cli.commands.explore_command import explore
from explaind_tf.cli.commands.info_command import info
from explaind_tf.cli.commands.report_command import report
from explaind_tf.cli.commands.verify_command import verify
from explaind_tf.cli.exits import EXIT_CODES, plain_errors
from explaind_tf.cli.option_groups import with_groups
from explaind_tf.constants import VERSION

app = typer.Typer(no_args_is_help=True, add_completion=False, epilog=EXIT_CODES)


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


for _command in (
    demo,
    info,
    verify,
    estimate,
    attribute,
    counterfactual,
    report,
    explore,
):
    app.command(epilog=EXIT_CODES)(plain_errors()(with_groups(_command)))
