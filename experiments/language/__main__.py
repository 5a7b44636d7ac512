"""Train a small byte-level language model, and account for it by depth, step and training text.

    python -m experiments.language [--quick] [--keep DIRECTORY]

One training run answers three questions:

- Does it have the two phases that the paper (arXiv:2505.20076) finds in the pretraining of EuroLLM: first the MLPs of outer
  blocks, later the attention of intermediate blocks?
- Do sparse checkpoints give the same influences as a recording of every step?
- From which bytes of the training text do a few continuations come?
"""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import xarray as xr

import explaind_tf as xtf
from experiments.classifiers import balanced_ledger
from experiments.command import Out, Quick
from experiments.language import influence_figures, wording
from experiments.language.continuations import CONTINUATIONS, Account, account, pose
from experiments.language.corpus_training import QUICK, RUN_DIR, Settings, Text, choose_text, record
from experiments.language.depth import Depth, account_for_depth
from experiments.language.measuring import log_prob
from experiments.language.report import INPUTS_FILE
from experiments.results import Findings, Image, carry_out, choose

NAME = "language"


def experiment(settings: Settings, runs_dir: Path) -> Findings:
    """Train, and answer the three questions."""
    text = choose_text(settings)
    np.savez(runs_dir / INPUTS_FILE, x=text.probes.x, y=text.probes.y)
    model = record(settings, text, runs_dir)
    run = xtf.open_run(runs_dir / RUN_DIR)
    depth = account_for_depth(settings, text, runs_dir, model, run)
    accounts = account_for_continuations(settings, text, runs_dir, run)
    return Findings(
        title="Language model",
        question=wording.question(settings, model.count_params()),
        conclusions=wording.conclusions(settings, depth, accounts),
        tables=wording.tables(depth, accounts),
        values={"depth": depth.to_json(), "continuations": [each.to_json() for each in accounts]},
        images=_images(settings, depth, accounts),
        arrays=xr.Dataset(
            {"influence": depth.parts, "from_checkpoints": depth.series[0].rename(step="interval")}
        ),
    )


def account_for_continuations(settings: Settings, text: Text, out: Path, run: xtf.Run) -> list[Account]:
    """Account for continuations by training window and byte; the ledger is written to ``out/tokens.zarr``."""
    asked = CONTINUATIONS[: settings.continuations]
    questions = pose(asked, settings.length)
    np.savez(out / "continuations.npz", x=questions.x, y=questions.y, asked=questions.asked)
    ledger = balanced_ledger(
        run,
        questions.x,
        log_prob("log-probability of a continuation", questions.y, questions.asked),
        axes=("sample", "token"),
        tolerance=settings.tolerance,
    )
    ledger.to_zarr(out / "tokens.zarr", consolidated=False)
    return [account(ledger, row, each, text.train, settings.shown) for row, each in enumerate(asked)]


def _images(settings: Settings, depth: Depth, accounts: list[Account]) -> list[Image]:
    every, blocks = settings.save_every, settings.blocks
    return [
        Image(
            "learning",
            "The held-out log-probability over the steps, and what attention, MLPs and the rest did to it",
            influence_figures.learning(depth.parts, depth.initial),
        ),
        Image(
            "depth",
            "What each part of the model did to the held-out log-probability, by step and in the whole training",
            influence_figures.depth(depth.parts, every),
        ),
        Image(
            "phases",
            "Share of the absolute influence of an outer and an inner block's MLP and attention over the steps",
            influence_figures.phases(depth.parts, depth.series[0], every, depth.stages, blocks),
        ),
        Image(
            "checkpoints",
            "Influence from checkpoints against that of the recorded steps, and how they differ by their distance",
            influence_figures.agreement(depth.agreement, depth.series, depth.parts),
        ),
        Image(
            "continuations",
            "The windows of training text that raised each continuation most, byte by byte",
            influence_figures.continuations(accounts),
        ),
    ]


def main(
    quick: Quick = False,
    out: Out = None,
    seed: Annotated[int, typer.Option(help="Of weights, order of the text and held-out windows.")] = 0,
    keep: Annotated[
        Path | None, typer.Option(help="New directory to keep the run, its inputs and the ledgers in.")
    ] = None,
) -> None:
    """Account for a small language model by depth, step and training text."""
    settings = choose(QUICK if quick else Settings(), seed=seed)
    if keep is None:
        carry_out(NAME, experiment, settings, quick=quick, out=out)
        return
    keep.mkdir(parents=True)
    carry_out(NAME, partial(_in, keep), settings, quick=quick, out=out)


def _in(directory: Path, settings: Settings, _: Path) -> Findings:
    return experiment(settings, directory)


if __name__ == "__main__":
    typer.run(main)
