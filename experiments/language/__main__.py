"""Train a small byte-level language model, and account for it by depth, step and training text.

    python -m experiments.language [--quick]

Asks of one training run whether the two phases that the paper (arXiv:2505.20076) finds in the pretraining of EuroLLM are
there (MLPs of outer blocks first, attention of intermediate blocks later); whether sparse checkpoints give the influences
that a recording of every step gives; and which bytes of training text a few continuations come from.
"""

import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import typer
import xarray as xr
from matplotlib.figure import Figure

import explaind_tf as xtf
from experiments.language import continuations, figures, layers
from experiments.language.measuring import log_prob
from experiments.language.training import (
    QUICK,
    RUN_DIR,
    Settings,
    Text,
    checkpoint,
    choose_text,
    record,
)


def by_depth_and_step(
    settings: Settings, text: Text, out: Path, model: keras.Model, run: xtf.Run
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Account for held-out text by part of the model and step: from the recording, and from checkpoints."""
    each = np.full(text.probes.y.shape, 1 / settings.length)
    measurement = log_prob("mean log-probability of a byte", text.probes.y, each)

    def ask(path: Any) -> xr.Dataset:
        ledger = path.attribute(
            text.probes.x, measurement, axes=("layer", "step"), tolerance=settings.tolerance
        )
        ledger.explaind.check()
        return ledger

    ledger = ask(run)
    ledger.to_zarr(out / "layers.zarr", consolidated=False)
    parts = layers.influence(ledger, settings.blocks)
    series, found = [], []
    for every in (settings.every, *settings.thinned):
        paths = [checkpoint(out, step) for step in range(0, settings.steps + 1, every)]
        series.append(layers.influence(ask(xtf.open_checkpoints(paths, model)), settings.blocks))
        found.append(layers.agreement(every, series[-1], parts))
    turn = layers.turn_of(layers.binned(parts, settings.every))
    shares = layers.binned(layers.shares(parts), settings.every) / settings.every
    initial = float(ledger.initial.mean())
    mean = parts.mean("input").sum("step")
    result = {
        "held_out_log_prob": {"initial": initial, "final": float(ledger.final.mean())},
        "largest_residual_over_movement": float(
            (abs(ledger.explaind.total("residual")) / ledger.movement).max()
        ),
        "quadrature_nodes": int(ledger.attrs["quadrature_nodes"]),
        "by_cause": {term: float(ledger.explaind.total(term).mean()) for term in ledger.explaind.terms},
        "by_kind": layers.by_kind(mean),
        "by_component": dict(zip(mean.component.values.tolist(), mean.values.tolist(), strict=True)),
        "absolute_share_by_kind": layers.by_kind(layers.shares(parts).mean("step")),
        "phases_recorded": layers.phases(shares, turn, settings.blocks).to_json(),
        "phases_checkpoints": layers.phases(layers.shares(series[0]), turn, settings.blocks).to_json(),
        "agreement": [dataclasses.asdict(each) for each in found],
    }
    drawn = {
        "learning": figures.learning(parts, initial),
        "depth": figures.depth(parts, settings.every),
        "phases": figures.phases(parts, series[0], settings.every, turn, settings.blocks),
        "agreement": figures.agreement(found, series, parts),
    }
    return result, drawn


def by_token(
    settings: Settings, text: Text, out: Path, run: xtf.Run
) -> tuple[list[dict[str, Any]], dict[str, Figure]]:
    """Account for continuations by training window and byte."""
    asked = continuations.CONTINUATIONS[: settings.continuations]
    questions = continuations.pose(asked, settings.length)
    ledger = run.attribute(
        questions.x,
        log_prob("log-probability of a continuation", questions.y, questions.asked),
        axes=("sample", "token"),
        tolerance=settings.tolerance,
    )
    assert isinstance(ledger, xr.Dataset)
    ledger.explaind.check()
    ledger.to_zarr(out / "tokens.zarr", consolidated=False)
    accounts = [
        continuations.account(ledger, row, each, text.train, settings.shown) for row, each in enumerate(asked)
    ]
    return [account.to_json() for account in accounts], {"continuations": figures.continuations(accounts)}


def main(
    quick: Annotated[bool, typer.Option("--quick", help="A tiny model and few steps.")] = False,
    seed: Annotated[int, typer.Option(help="Of weights and order of the text.")] = 0,
    out: Annotated[
        Path, typer.Option(help="New directory for the run, ledgers, figures and numbers.")
    ] = Path("runs/language"),
) -> None:
    """Train, account, and write numbers and figures."""
    settings = dataclasses.replace(QUICK if quick else Settings(), seed=seed)
    out.mkdir(parents=True)
    start = time.perf_counter()
    text = choose_text(settings)
    np.savez(out / "inputs.npz", x=text.probes.x, y=text.probes.y)
    model = record(settings, text, out)
    trained = time.perf_counter()
    run = xtf.open_run(out / RUN_DIR)
    depth, drawn = by_depth_and_step(settings, text, out, model, run)
    accounted = time.perf_counter()
    tokens, more = by_token(settings, text, out, run)
    ended = time.perf_counter()
    for name, figure in (drawn | more).items():
        figures.save(figure, out / f"{name}.png")
    (out / "results.json").write_text(
        json.dumps(
            {
                "depth": depth,
                "tokens": tokens,
                "seconds": [trained - start, accounted - trained, ended - accounted],
            },
            indent=2,
        )
        + "\n"
    )


if __name__ == "__main__":
    typer.run(main)
