"""Influence by depth and step of one training, from its recording and from series of its checkpoints."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import xarray as xr

import explaind_tf as xtf
from experiments.classifiers import balanced_ledger
from experiments.language import layers
from experiments.language.corpus_training import Settings, Text, checkpoint
from experiments.language.layers import Agreement, Phases
from experiments.language.measuring import log_prob
from explaind_tf import constants as names


@dataclass(frozen=True)
class Depth:
    """Influence of the parts of the model on held-out text, in nats per byte.

    Attributes
    ----------
    parts : xarray.DataArray
        Influence by (input, component, step), from the recording.
    series : tuple of xarray.DataArray
        The same by interval instead of step, from checkpoints. The series with the closest checkpoints is the first.
    agreement : tuple of Agreement
        Agreement of each series with the recording.
    initial, final : float
        Mean log-probability of a byte before and after training.
    causes : dict
        Sum of each of the ledger's terms, mean over inputs.
    residual : float
        The largest residual as a share of the movement.
    stages : dict
        The steps of each stage of learning.
    recorded, sparse : Phases
        From the recording, and from the closest checkpoints.
    """

    parts: xr.DataArray
    series: tuple[xr.DataArray, ...]
    agreement: tuple[Agreement, ...]
    initial: float
    final: float
    causes: dict[str, float]
    residual: float
    stages: dict[str, range]
    recorded: Phases
    sparse: Phases

    @property
    def totals(self) -> xr.DataArray:
        """Influence of each component over the whole training, mean over inputs."""
        return self.parts.mean(names.INPUT).sum(names.STEP)

    @property
    def absolute(self) -> xr.DataArray:
        """Each component's share of the absolute influence, mean over steps."""
        return layers.shares(self.parts).mean(names.STEP)

    def to_json(self) -> dict[str, Any]:
        """Return all numbers."""
        return {
            "log_prob_of_a_byte": {"initial": self.initial, "final": self.final},
            "by_cause": self.causes,
            "largest_residual_over_movement": self.residual,
            "by_kind": layers.by_kind(self.totals),
            "by_component": _as_dict(self.totals),
            "absolute_share_by_kind": layers.by_kind(self.absolute),
            "absolute_share_by_component": _as_dict(self.absolute),
            "last_steps_of_stages": {stage: steps[-1] for stage, steps in self.stages.items()},
            "phases_recorded": self.recorded.to_json(),
            "phases_checkpoints": self.sparse.to_json(),
            "checkpoints": [asdict(each) for each in self.agreement],
        }


def account_for_depth(settings: Settings, text: Text, out: Path, model: keras.Model, run: xtf.Run) -> Depth:
    """Account for held-out text by the recording, whose ledger goes to ``out/layers.zarr``, and by the checkpoints.

    Raises
    ------
    UnbalancedLedgerError
        If a ledger does not balance.
    """
    each = np.full(text.probes.y.shape, 1 / settings.length)
    measurement = log_prob("mean log-probability of a byte", text.probes.y, each)

    def ask(path: Any) -> xr.Dataset:
        return balanced_ledger(
            path, text.probes.x, measurement, axes=("layer", "step"), tolerance=settings.tolerance
        )

    ledger = ask(run)
    ledger.to_zarr(out / "layers.zarr", consolidated=False)
    parts = layers.influence(ledger, settings.blocks)
    series = []
    for every in (settings.save_every, *settings.thinned):
        paths = [checkpoint(out, step) for step in range(0, settings.steps + 1, every)]
        series.append(layers.influence(ask(xtf.open_checkpoints(paths, model)), settings.blocks))
    stages = layers.stages_of(parts)
    return Depth(
        parts=parts,
        series=tuple(series),
        agreement=tuple(
            layers.agreement(every, found, parts)
            for every, found in zip((settings.save_every, *settings.thinned), series, strict=True)
        ),
        initial=float(ledger.initial.mean()),
        final=float(ledger.final.mean()),
        causes={term: float(ledger.explaind.total(term).mean()) for term in ledger.explaind.terms},
        residual=float((abs(ledger.explaind.total(names.RESIDUAL)) / ledger.movement).max()),
        stages=stages,
        recorded=layers.phases(layers.shares(parts), stages, 1, settings.blocks),
        sparse=layers.phases(layers.shares(series[0]), stages, settings.save_every, settings.blocks),
    )


def _as_dict(of_components: xr.DataArray) -> dict[str, float]:
    return dict(
        zip(of_components[layers.COMPONENT].values.tolist(), of_components.values.tolist(), strict=True)
    )
