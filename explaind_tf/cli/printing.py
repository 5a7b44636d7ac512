"""Prints results of commands on stdout, as JSON or as tables for people."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import typer
from rich.console import Console, RenderableType

from explaind_tf.cli.plain import plain


@dataclass(frozen=True, kw_only=True)
class Printed:
    """The options that say how results are printed.

    Attributes
    ----------
    top : int
        Most samples to show of each prediction, and most layers and steps.
    as_json : bool
        Whether to print JSON.
    """

    top: int = field(
        default=5, metadata={"help": "Most samples to show of each prediction, and most layers and steps."}
    )
    as_json: bool = field(default=False, metadata={"help": "Print JSON instead of tables."})


def print_facts(found: dict[str, Any], as_json: bool, shown: Callable[[], Iterable[RenderableType]]) -> None:
    """Print results.

    Parameters
    ----------
    found : dict
        The results, with keys that scripts rely on.
    as_json : bool
        Whether to print them as JSON.
    shown : callable
        Returns the lines and tables to print otherwise.
    """
    if as_json:
        typer.echo(json.dumps(plain(found), allow_nan=False))
        return
    console = Console()
    for part in shown():
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)
