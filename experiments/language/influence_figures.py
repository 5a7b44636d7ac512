"""The figures of the experiment; the title of each says what it shows."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from experiments.language.continuations import Account
from experiments.language.layers import (
    ATTENTION,
    COMPONENT,
    EMBEDDING,
    GROUPS,
    MLP,
    NORMS,
    UNEMBEDDING,
    Agreement,
    binned,
    block_shares,
    shares,
)
from experiments.results import new_figure
from explaind_tf import constants as names

_COLORS = {
    ATTENTION: "tab:orange",
    MLP: "tab:blue",
    EMBEDDING: "tab:green",
    UNEMBEDDING: "tab:red",
    NORMS: "tab:gray",
}
_GROUP_COLORS = dict(zip(GROUPS, ("tab:blue", "lightskyblue", "tab:red", "tab:orange"), strict=True))


def learning(parts: xr.DataArray, initial: float) -> Figure:
    """Draw the rise of the held-out log-probability, and the parts of the model that raised it."""
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    mean = parts.mean(names.INPUT)
    steps = np.arange(1, mean.sizes[names.STEP] + 1)
    total = mean.sum(COMPONENT).cumsum(names.STEP).values
    axes.plot(steps, total, color="black", linewidth=2.5, label="all (the held-out curve itself)")
    curves = {kind: np.zeros(len(steps)) for kind in _COLORS}
    for part in mean[COMPONENT].values:
        curves[part.split()[0]] += mean.sel({COMPONENT: part}).cumsum(names.STEP).values
    for kind, curve in curves.items():
        axes.plot(
            steps, curve, color=_COLORS[kind], label=f"all {kind}" if kind in (ATTENTION, MLP) else kind
        )
    axes.axhline(0, color="black", linewidth=0.5)
    axes.set(
        xlabel="training step",
        ylabel="nats a byte since the start",
        title=f"What raised the log-probability of held-out text from {initial:.2f} nats a byte at the start",
    )
    axes.legend(fontsize=8, loc="center right", bbox_to_anchor=(1, 0.6))
    return figure


def depth(parts: xr.DataArray, every: int) -> Figure:
    """Draw the influence of each part in each interval and in the whole training."""
    mean = binned(parts, every).mean(names.INPUT)
    rows = list(mean[COMPONENT].values)
    figure = new_figure(9, 5.2)
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    largest = float(abs(mean).max())
    power = 10.0 ** np.floor(np.log10(largest))
    image = left.imshow(
        mean.values,
        aspect="auto",
        cmap="RdBu",
        norm=SymLogNorm(power / 10, vmin=-largest, vmax=largest),
        extent=(0, every * mean.sizes[names.STEP], len(rows) - 0.5, -0.5),
    )
    left.set(xlabel="training step", title="by step", yticks=range(len(rows)), yticklabels=rows)
    bar = figure.colorbar(image, ax=left, location="bottom", shrink=0.7, label="nats a byte in an interval")
    ticks = [-power, -power / 10, 0, power / 10, power]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    totals = mean.sum(names.STEP)
    right.barh(range(len(rows)), totals.values, color=[_COLORS[row.split()[0]] for row in rows])
    right.axvline(0, color="black", linewidth=0.5)
    right.set(xlabel="nats a byte", title="whole training")
    figure.suptitle("Which part of the model raised (blue) the log-probability of held-out text, and when")
    return figure


def phases(
    parts: xr.DataArray, checkpoints: xr.DataArray, every: int, stages: Mapping[str, range], blocks: int
) -> Figure:
    """Draw the share of one block of each group over logarithmic time, since most is learnt at first."""
    smooth = shares(parts).rolling({names.STEP: every}, center=True, min_periods=1).mean()
    recorded, sparse = block_shares(smooth, blocks), block_shares(shares(checkpoints), blocks)
    figure = new_figure(8, 4.5)
    axes = figure.subplots()
    middles = every * (np.arange(checkpoints.sizes[names.STEP]) + 0.5)
    for group in GROUPS:
        color = _GROUP_COLORS[group]
        axes.plot(np.arange(1, parts.sizes[names.STEP] + 1), 100 * recorded[group], color=color, label=group)
        axes.plot(middles, 100 * sparse[group], "o", color=color, markersize=3)
    for stage, steps in stages.items():
        axes.axvline(steps.start + 1, color="black", linewidth=0.8, linestyle=":")
        axes.annotate(f" {stage}", (steps.start + 1, 0.98), xycoords=("data", "axes fraction"), va="top")
    axes.set(
        xlabel=f"training step (lines: as recorded, mean of {every} steps; dots: from checkpoints every {every} steps)",
        ylabel="share of all absolute influence, %",
        title="Share of one block: first and last blocks (outer) against those between (inner)",
        xscale="log",
    )
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8)
    return figure


def agreement(found: Sequence[Agreement], series: Sequence[xr.DataArray], parts: xr.DataArray) -> Figure:
    """Draw entries from checkpoints against those from the recording, for the closest and furthest checkpoints."""
    figure = new_figure(11, 4)
    columns = figure.subplots(1, 3)
    for axes, at in zip(columns, (0, -1), strict=False):
        _scatter(axes, found[at], series[at], binned(parts, found[at].every))
    spacing = [each.every for each in found]
    columns[2].plot(
        spacing, [100 * e.relative_difference for e in found], "o-", label="each part, window, interval"
    )
    columns[2].plot(
        spacing, [100 * e.mean_relative_difference for e in found], "s--", label="each part, whole training"
    )
    columns[2].set(
        xlabel="steps between checkpoints", ylabel="difference, % of the recorded", title="disagreement"
    )
    columns[2].set_ylim(bottom=0)
    columns[2].legend(fontsize=8)
    figure.suptitle("Influence of the model's parts: sparse checkpoints against the recorded steps")
    return figure


def _scatter(axes: Axes, found: Agreement, checkpoints: xr.DataArray, recorded: xr.DataArray) -> None:
    for kind, color in _COLORS.items():
        at = {COMPONENT: [part for part in recorded[COMPONENT].values if part.split()[0] == kind]}
        pair = (recorded.sel(at).values.ravel(), checkpoints.sel(at).values.ravel())
        axes.plot(*pair, ".", color=color, markersize=3, label=kind)
    ends = [float(recorded.min()), float(recorded.max())]
    axes.plot(ends, ends, color="black", linewidth=0.7)
    axes.set(
        xlabel="recorded, nats a byte",
        ylabel="from checkpoints, nats a byte",
        title=f"every {found.every} steps: correlation {found.correlation:.3f}",
    )
    axes.legend(fontsize=7, markerscale=3)


def continuations(accounts: Sequence[Account]) -> Figure:
    """Draw for each continuation the windows that raised it most, each byte in the colour of its influence."""
    shown = len(accounts[0].sources)
    length = len(accounts[0].sources[0].text)
    height = 0.26 * (shown + 2.2) * len(accounts) + 0.5
    figure = new_figure(max(7, 0.145 * length + 2.4), height)
    rows = np.atleast_1d(figure.subplots(len(accounts), 1))
    for axes, each in zip(rows, accounts, strict=True):
        values = np.stack([source.influence for source in each.sources])
        largest = np.abs(values).max()
        axes.imshow(values, aspect="auto", cmap="RdBu", vmin=-largest, vmax=largest)
        for y, source in enumerate(each.sources):
            for x, letter in enumerate(readable(source.text)):
                strong = abs(source.influence[x]) > 0.6 * largest
                axes.text(
                    x, y, letter, ha="center", va="center", family="monospace", fontsize=7,
                    color="white" if strong else "black", parse_math=False,
                )  # fmt: skip
        labels = [source.id for source in each.sources]
        axes.set_yticks(range(shown), labels, fontsize=6)
        axes.set_xticks([])
        axes.set_title(
            f"{each.continuation.title}     probability {np.exp(each.initial):.1g} → {np.exp(each.final):.2g}",
            fontsize=9, family="monospace", loc="left", parse_math=False,
        )  # fmt: skip
    figure.suptitle(
        "Training text that raised a continuation (after the bar) most; blue bytes raised it, red ones lowered it",
        fontsize=9,
    )
    return figure


def readable(text: bytes) -> str:
    """Return one printable character for each byte."""
    signs = {10: "⏎", 32: " "}
    return "".join(signs.get(byte, chr(byte) if 32 < byte < 127 else "�") for byte in text)
