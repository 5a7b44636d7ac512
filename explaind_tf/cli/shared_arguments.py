"""Arguments and options that several commands share."""

from dataclasses import dataclass, field
from typing import Annotated

import typer

from explaind_tf.cli.values import to_slice

RunDir = Annotated[str, typer.Argument(metavar="RUN", help="Directory that a PathLogger wrote, or its URL.")]
Source = Annotated[
    str,
    typer.Option(
        "--inputs",
        metavar="FILE|tfds:NAME/SPLIT",
        help="An .npz with x, or with the names of the model's inputs (explaind-tf info shows them), and labels y; an .npy "
        "with x alone; or a TFDS split. Prepared as in training, scaling included.",
    ),
]
Rows = Annotated[
    slice | None,
    typer.Option(parser=to_slice, metavar="A:B", help="Rows of the inputs; by default all."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The options that say who computes.

    Attributes
    ----------
    workers : int, optional
        Number of processes on this machine; by default this one.
    scheduler : str, optional
        Address of a Dask scheduler.
    """

    workers: int | None = field(
        default=None, metadata={"help": "Share the work out to N processes on this machine."}
    )
    scheduler: str | None = field(
        default=None, metadata={"help": "Share it out to the workers of the Dask scheduler at this address."}
    )


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The options that say how a counterfactual answer is held against trainings without some samples.

    Attributes
    ----------
    validate : int
        How often to train again: 0, or 2 or more.
    share : float
        Share of the samples that each of these trainings leaves out.
    """

    validate: int = field(
        default=0,
        metadata={
            "help": "Train again N times without some samples, 2 or more, and compare with what responses foretell."
        },
    )
    share: float = field(
        default=0.05, metadata={"help": "Share of the samples that each of these trainings leaves out."}
    )
