"""How a command prints what it found: on stdout, as JSON or as a person wants to see it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import typer
from rich.console import Console, RenderableType

from explaind_tf.cli import facts


@dataclass(frozen=True, kw_only=True)
class Printed:
    """The options that say how results are printed.

    Attributes
    ----------
    top : int
        Most samples, layers and steps of each.
    as_json : bool
        Whether they are JSON.
    """

    top: int = field(default=5, metadata={"help": "Most samples, layers and steps to show of each."})
    as_json: bool = field(default=False, metadata={"help": "Print JSON instead of tables."})


def print_facts(found: dict[str, Any], as_json: bool, shown: Callable[[], Iterable[RenderableType]]) -> None:
    """Print what was found.

    Parameters
    ----------
    found : dict
        Facts, with keys that scripts rely on.
    as_json : bool
        Whether to print these, as JSON.
    shown : callable
        Otherwise called for lines and tables.
    """
    if as_json:
        typer.echo(json.dumps(facts.plain(found), allow_nan=False))
        return
    console = Console()
    for part in shown():
        console.print(part, highlight=False, soft_wrap=isinstance(part, str), markup=False)
