"""Influence by depth and step: from the recording, and from sparse checkpoints of the same training."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from explaind_tf import constants as names

ATTENTION, MLP = "attention", "MLP"
# Layers before and after the blocks, and layers within blocks that scale.
EMBEDDING, UNEMBEDDING, NORMS = "embedding", "unembedding", "norms"
COMPONENT = "component"

# Groups of parts, as in the paper: the first and the last block are the outer ones.
GROUPS = ("outer MLP", "inner MLP", "outer attention", "inner attention")


def component(layer: str) -> str:
    """Return the part of the model that a layer belongs to: ``"MLP 3"`` for both layers of the MLP of block 3."""
    found = re.fullmatch(r"block(\d+)_(attention|mlp)(_norm|_in|_out)?", layer)
    if layer == "final_norm" or (found and found[3] == "_norm"):
        return NORMS
    if found:
        return f"{ATTENTION if found[2] == 'attention' else MLP} {found[1]}"
    return UNEMBEDDING if layer == UNEMBEDDING else EMBEDDING


def components(blocks: int) -> list[str]:
    """Return the parts of a model in the order of a figure's rows, from input to output."""
    inside = [f"{kind} {block}" for block in range(blocks) for kind in (ATTENTION, MLP)]
    return [EMBEDDING, *inside, UNEMBEDDING, NORMS]


def members(group: str, blocks: int) -> list[str]:
    """Return the parts of one of GROUPS."""
    where, kind = group.split()
    outer = {0, blocks - 1}
    return [f"{kind} {b}" for b in range(blocks) if (b in outer) == (where == "outer")]


def influence(ledger: xr.Dataset, blocks: int) -> xr.DataArray:
    """Return the influence of each part on each input in each step, all causes together: dims (input, component, step).

    Values have the units of the measurement; positive values raised it.
    """
    terms = [ledger[term] for term in ledger.explaind.terms if names.LAYER in ledger[term].dims]
    total = (
        sum(terms[1:], start=terms[0])
        .squeeze(names.OUTPUT, drop=True)
        .reset_coords(names.MOVEMENT, drop=True)
    )
    of_layer = [component(layer) for layer in total[names.LAYER].values]
    parts = total.assign_coords({COMPONENT: (names.LAYER, of_layer)}).groupby(COMPONENT).sum()
    ordered = np.array(
        components(blocks), object
    )  # zarr has a stable type for objects, but none for strings of fixed length
    return (
        parts.sel({COMPONENT: ordered})
        .assign_coords({COMPONENT: ordered})
        .transpose(names.INPUT, COMPONENT, names.STEP)
    )


def binned(steps: xr.DataArray, size: int) -> xr.DataArray:
    """Return the sums over windows of ``size`` steps, numbered from 0."""
    sums = steps.coarsen({names.STEP: size}).sum()
    return sums.assign_coords({names.STEP: np.arange(sums.sizes[names.STEP])})


@dataclass(frozen=True)
class Agreement:
    """How entries from checkpoints agree with those from the recording of the same steps.

    Attributes
    ----------
    every : int
        Steps between checkpoints.
    entries : int
        Inputs × components × intervals.
    correlation : float
        Pearson's, over the entries.
    relative_difference : float
        Σ|checkpoints − recording| / Σ|recording| over the entries.
    mean_relative_difference : float
        The same for means over inputs and sums over all intervals, which are the influence of a part in the whole training.
    attention, mlp : float
        Influence of all attention and of all MLPs in the whole training, from the checkpoints, mean over inputs.
    """

    every: int
    entries: int
    correlation: float
    relative_difference: float
    mean_relative_difference: float
    attention: float
    mlp: float


def agreement(every: int, checkpoints: xr.DataArray, recorded: xr.DataArray) -> Agreement:
    """Compare the influences from checkpoints with those from the recording, summed over the same intervals."""
    a, b = checkpoints.values, binned(recorded, every).values
    totals = (checkpoints.sum(names.STEP).mean(names.INPUT), recorded.sum(names.STEP).mean(names.INPUT))
    return Agreement(
        every=every,
        entries=a.size,
        correlation=float(np.corrcoef(a.ravel(), b.ravel())[0, 1]),
        relative_difference=float(np.abs(a - b).sum() / np.abs(b).sum()),
        mean_relative_difference=float(abs(totals[0] - totals[1]).sum() / abs(totals[1]).sum()),
        attention=_of_kind(totals[0], ATTENTION),
        mlp=_of_kind(totals[0], MLP),
    )


def by_kind(parts: xr.DataArray) -> dict[str, float]:
    """Return the sums over all attention, over all MLPs and over the rest, of an array with the dim component only."""
    rest = (EMBEDDING, UNEMBEDDING, NORMS)
    inside = {kind: _of_kind(parts, kind) for kind in (ATTENTION, MLP)}
    return inside | {part: float(parts.sel({COMPONENT: part})) for part in rest}


def _of_kind(parts: xr.DataArray, kind: str) -> float:
    return float(
        parts.sel({COMPONENT: [p for p in parts[COMPONENT].values if p.startswith(f"{kind} ")]}).sum()
    )


def shares(parts: xr.DataArray) -> xr.DataArray:
    """Return each part's share of the absolute influence in each step or interval, dims (component, step).

    The absolute value is taken for each input and step. So influences count that raise some windows and lower others,
    or that change their sign from step to step.
    """
    size = abs(parts).mean(names.INPUT)
    return size / size.sum(COMPONENT)


def block_shares(share: xr.DataArray, blocks: int) -> dict[str, np.ndarray]:
    """Return, for each of GROUPS, the mean share of one block by interval; the groups differ in the number of blocks."""
    return {group: share.sel({COMPONENT: members(group, blocks)}).mean(COMPONENT).values for group in GROUPS}


# Stages of learning: each ends when this share of the whole rise was reached.
STAGES = {"early": 0.5, "middle": 0.9, "late": 1.0}


@dataclass(frozen=True)
class Phases:
    """The paper's two findings in numbers: shares of one block of each group in the stages of learning.

    Attributes
    ----------
    share : dict
        For each of STAGES, for each of GROUPS, the share of a block in the absolute influence, mean over steps.
    """

    share: dict[str, dict[str, float]]

    @property
    def early_leader(self) -> str:
        """The group whose blocks had the largest share in the first stage."""
        return max(GROUPS, key=self.share["early"].__getitem__)

    @property
    def growth(self) -> dict[str, float]:
        """Share of each group in the late stage over that in the middle stage."""
        return {group: self.share["late"][group] / self.share["middle"][group] for group in GROUPS}

    @property
    def grower(self) -> str:
        """The group whose share grew most."""
        return max(GROUPS, key=self.growth.__getitem__)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers, and whether the two findings of the paper are confirmed."""
        return {
            "block_share": self.share,
            "late_over_middle": self.growth,
            "outer_mlp_leads_early": self.early_leader == "outer MLP",
            "inner_attention_grows": self.growth["inner attention"] > 1,
            "inner_attention_grows_most": self.grower == "inner attention",
        }


def stages_of(parts: xr.DataArray) -> dict[str, range]:
    """Return the steps of each of STAGES, by the sum of all parts, mean over inputs; no stage is empty."""
    curve = parts.sum(COMPONENT).mean(names.INPUT).cumsum(names.STEP).values
    stages, begin = {}, 0
    for left, (stage, made) in zip(reversed(range(len(STAGES))), STAGES.items(), strict=True):
        end = int(np.argmax(curve >= made * curve[-1])) + 1 if left else len(curve)
        end = min(max(end, begin + 1), len(curve) - left)
        stages[stage] = range(begin, end)
        begin = end
    return stages


def phases(share: xr.DataArray, stages: Mapping[str, range], every: int, blocks: int) -> Phases:
    """Average the shares of blocks over the steps of each stage.

    Parameters
    ----------
    share : xarray.DataArray
        By steps (if ``every`` is 1) or by intervals of ``every`` steps.
    stages : mapping
        From :func:`stages_of`. Each of their steps has the shares of the interval that contains it.
    every : int
        Steps of an interval.
    blocks : int
        Number of blocks of the model.
    """
    each = block_shares(share, blocks)
    at = {stage: np.asarray(steps) // every for stage, steps in stages.items()}
    return Phases(
        {
            stage: {group: float(each[group][intervals].mean()) for group in GROUPS}
            for stage, intervals in at.items()
        }
    )
