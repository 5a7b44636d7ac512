"""The command line of an experiment: its size, the directory of its results, and its settings."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.results import Findings, S, carry_out, choose

# The options that every experiment has.
Quick = Annotated[bool, typer.Option("--quick", help="Small sizes, for a look: done within seconds.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Directory for the results. Default: experiments/results/NAME, or runs/NAME if quick."),
]
# Options that several experiments have.
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Of weights, batches and data; may be repeated.")
]
Seed = Annotated[int | None, typer.Option(help="Of weights and data.")]


def command(
    name: str, experiment: Callable[[S, Path], Findings], *, full: S, quick: S, help: str, **options: Any
) -> Callable[..., None]:
    """Return a function for ``typer.run``.

    Parameters
    ----------
    name : str
        Name of the experiment and of its directory.
    experiment : callable
        ``(settings, runs_dir) -> Findings``, see :func:`experiments.results.carry_out`.
    full, quick : dataclass
        Settings of the full run and of ``--quick``.
    help : str
        What the experiment does, in a sentence.
    **options : annotated types
        Types of the options, by the name of the setting, in the order of ``--help``. None stands for an option that is not
        given, as in ``steps=Annotated[int | None, typer.Option(help="…")]``.
    """

    def main(**given: Any) -> None:
        is_quick, out = given.pop("quick"), given.pop("out")
        settings = choose(quick if is_quick else full, **given)
        carry_out(name, experiment, settings, quick=is_quick, out=out)

    # Typer reads names, types and defaults of the options from the signature.
    types = {"quick": Quick, "out": Out, **options}
    main.__annotations__ = {**types, "return": None}
    main.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                option,
                inspect.Parameter.KEYWORD_ONLY,
                default=False if option == "quick" else None,
                annotation=of,
            )
            for option, of in types.items()
        ]
    )
    main.__doc__ = help
    return main
