"""Write the report of a language model that the experiment kept.

python -m experiments.language --keep DIRECTORY
python -m experiments.language.report DIRECTORY
"""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import explaind_tf as xtf
from experiments.language.corpus_training import RUN_DIR
from explaind_tf.report import Asked, Example, account_for, write_report

# File of the probes that the experiment keeps.
INPUTS_FILE = "inputs.npz"
_FOLLOWED, _SHOWN = 8, 3


def show(arrays: list[np.ndarray], _: Any) -> Example:
    """Return a window of bytes as text."""
    return Example(arrays[0].astype(np.uint8).tobytes().decode("latin-1").replace("\n", "⏎"))


def main(
    kept: Annotated[Path, typer.Argument(help="What `--keep` of the experiment made.")],
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("report.html"),
    tolerance: Annotated[float, typer.Option(help="Of the ledgers.")] = 1e-2,
) -> None:
    """Account for the byte that the model predicts after a few held-out windows."""
    with np.load(kept / INPUTS_FILE) as inputs:
        x, y = inputs["x"][:_FOLLOWED], inputs["y"][:_FOLLOWED]
    section = account_for(
        xtf.open_run(kept / RUN_DIR),
        Asked(x, y, shown=_SHOWN),
        title="Byte language model",
        introduction="A decoder-only Transformer learnt to predict the next byte of Python's standard library. "
        "Classes are bytes; line ends are shown as ⏎.",
        show=show,
        tolerance=tolerance,
    )
    write_report(out, [section])
    print(f"Report: {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    typer.run(main)
