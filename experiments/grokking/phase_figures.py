"""Figures of a run that generalises late."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.grokking.interventions import AS_IT_WAS, GENERALISES, Retrained
from experiments.grokking.study import LAYERS, OUTER, Looked, Trained
from experiments.results import new_figure

# Line styles distinguish outer and inner layers without colours.
_COLOURS = dict(zip(LAYERS, ("C0", "C7", "C1", "C2", "C3", "C4"), strict=True))


def mark_phases(axes: Axes, trained: Trained) -> None:
    """Mark the steps at which training accuracy 1 and validation accuracy 0.99 were reached."""
    if trained.phases is None:
        return
    steps = (trained.phases.memorised, trained.phases.generalised)
    for step in steps:
        axes.axvline(step, color="0.5", linewidth=0.8, linestyle=":")
    above = axes.secondary_xaxis("top")
    above.set_xticks(steps, ["memorised", "generalised"], fontsize=7)


def curves(trained: Trained, title: str) -> Figure:
    """Accuracy and loss of both splits."""
    figure = new_figure(9, 3.4)
    for axes, name, unit in zip(figure.subplots(1, 2), ("accuracy", "loss"), ("", " (nats)"), strict=True):
        for split, style in (("training", "--"), ("validation", "-")):
            axes.plot(trained.curve.step, trained.curve[name].sel(split=split), style, label=split)
        axes.set(xlabel="training step", ylabel=f"{name}{unit}")
        mark_phases(axes, trained)
        axes.legend(loc="center right", fontsize=8)
    figure.axes[1].set_yscale("log")
    figure.suptitle(title)
    return figure


def layers_and_causes(trained: Trained, looked: Looked, title: str) -> Figure:
    """Influence by layer, and the data term beside weight decay."""
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    for layer in LAYERS:
        style = "-" if layer in OUTER else "--"
        left.plot(
            looked.shares.step, looked.shares.sel(layer=layer), style, color=_COLOURS[layer], label=layer
        )
    left.set(xlabel="training step", ylabel="share of all influence", ylim=(0, None))
    left.set_title("by layer (outer: solid, inner: dashed)", fontsize=10)
    left.legend(fontsize=7)
    terms = {"data": "gradients of the data", "weight_decay": "weight decay"}
    for term, label in terms.items():
        right.plot(looked.balance.step, looked.balance.sel(term=term), label=label)
    right.plot(looked.balance.step, looked.balance.sum("term"), "k", linewidth=1, label="both")
    right.axhline(0, color="0.7", linewidth=0.8)
    right.set_yscale("symlog", linthresh=0.05)
    right.set(xlabel="training step", ylabel=f"nats in {_window(looked)} steps")
    right.set_title("what moves the log-probability of right answers", fontsize=10)
    right.legend(fontsize=8)
    for axes in (left, right):
        mark_phases(axes, trained)
    figure.suptitle(title)
    return figure


def similarity(trained: Trained, looked: Looked, title: str) -> Figure:
    """Cosines between layers in each phase."""
    phases = looked.cosines.window.values
    figure = new_figure(1.2 + 3.1 * len(phases), 4.2)
    for axes, phase in zip(figure.subplots(1, len(phases), squeeze=False)[0], phases, strict=True):
        values = looked.cosines.sel(window=phase).values
        image = axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_xticks(range(len(LAYERS)), LAYERS, rotation=90, fontsize=7)
        axes.set_yticks(range(len(LAYERS)), LAYERS if axes is figure.axes[0] else [], fontsize=7)
        steps = trained.windows[phase]
        axes.set_title(f"{phase}\nsteps {steps.start} … {steps.stop - 1}", fontsize=9)
        for i, j in np.ndindex(values.shape):
            axes.text(j, i, f"{values[i, j]:.1f}", ha="center", va="center", fontsize=6)
    figure.colorbar(image, ax=figure.axes, label="cosine of influences", shrink=0.7)
    figure.suptitle(title)
    return figure


def kernels(trained: Trained, looked: Looked, title: str) -> Figure:
    """The kernel in the middle of each phase, with the training answers in their order."""
    starts = looked.kernel.step.values
    windows = {
        name: int(np.abs(starts - (steps.start + steps.stop) / 2).argmin())
        for name, steps in trained.windows.items()
    }
    figure = new_figure(1 + 3.3 * len(windows), 3.4)
    for axes, (name, window) in zip(
        figure.subplots(1, len(windows), squeeze=False)[0], windows.items(), strict=True
    ):
        values = looked.kernel.values[window]
        # Each input has its own scale, and its own answer is left out, as in the analysis of the invariance.
        rows = np.arange(len(values))
        others = values.copy()
        others[rows, looked.answers] = np.nan
        others -= np.nanmean(others, axis=1, keepdims=True)
        others /= np.nanmax(np.abs(others), axis=1, keepdims=True)
        image = axes.imshow(others, aspect="auto", cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        axes.set_title(f"{name}: from step {int(looked.kernel.step[window])}", fontsize=9)
        axes.set_xlabel("residue of the training sums", fontsize=8)
        axes.set_yticks(rows[::4], looked.answers[::4], fontsize=7)
    figure.axes[0].set_ylabel("residue of the held-out input", fontsize=8)
    figure.colorbar(image, ax=figure.axes, label="mean influence (scaled by row)", shrink=0.8)
    figure.suptitle(title)
    return figure


def structure(
    trained: Trained,
    shares: Mapping[str, Sequence[float]],
    spectra: np.ndarray,
    steps: Sequence[int],
    chance: float,
    title: str,
) -> Figure:
    """The share of the kernel that is invariant, and its spectrum, over training."""
    figure = new_figure(10, 3.8)
    left, right = figure.subplots(1, 2)
    for name, values in shares.items():
        left.plot(steps, values, label=name)
    left.axhline(chance, color="0.5", linestyle=":", label=f"chance, {chance:.2f}")
    left.set(xlabel="training step", ylabel="share of the kernel's energy", ylim=(0, 1))
    left.legend(fontsize=8)
    mark_phases(left, trained)
    width = steps[1] - steps[0] if len(steps) > 1 else 1
    image = right.imshow(
        spectra.T,
        aspect="auto",
        origin="lower",
        cmap="viridis",
        extent=(steps[0], steps[-1] + width, 0.5, spectra.shape[1] + 0.5),
        interpolation="nearest",
    )
    right.set(xlabel="training step", ylabel=trained.task.component)
    figure.colorbar(image, ax=right, label="share of the invariant part")
    figure.suptitle(title)
    return figure


def swaps(
    trained: Trained, steps: Sequence[int], accuracies: Mapping[str, Sequence[float]], title: str
) -> Figure:
    """Accuracies of models that combine layers from two steps."""
    figure = new_figure(8, 3.8)
    axes = figure.subplots()
    for name, values in accuracies.items():
        axes.plot(steps, values, "k--" if name == AS_IT_WAS else "-", label=name)
    axes.set(xlabel="step that the other layers are from", ylabel="validation accuracy", ylim=(0, 1.02))
    axes.legend(fontsize=8, title="taken from the end of training")
    mark_phases(axes, trained)
    axes.set_title(title)
    return figure


def retraining(found: Mapping[str, Sequence[Retrained]], every: int, title: str) -> Figure:
    """Validation accuracies of models that learn around frozen layers."""
    figure = new_figure(8, 3.8)
    axes = figure.subplots()
    for position, (name, runs) in enumerate(found.items()):
        for i, run in enumerate(runs):
            steps = np.arange(len(run.accuracies)) * every
            axes.plot(steps, run.accuracies, color=f"C{position}", label=name if i == 0 else None)
    axes.axhline(GENERALISES, color="0.5", linewidth=0.8, linestyle=":")
    axes.set(xlabel="step of the new training", ylabel="validation accuracy", ylim=(0, 1.02))
    axes.legend(fontsize=8, title="frozen")
    axes.set_title(title)
    return figure


def _window(looked: Looked) -> int:
    steps = looked.balance.step.values
    return int(steps[1] - steps[0]) if len(steps) > 1 else 1
