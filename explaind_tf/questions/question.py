"""A question put to a run: which axes, layers and steps, checked against what the run can give."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from explaind_tf import constants as names
from explaind_tf.errors import RefusedError
from explaind_tf.kernel.contractions import Partition
from explaind_tf.runs import WeightPath

StepOf = Literal["use", "effect"]
# A label for each sample: in the order of ``run.samples.ids``, or by id.
GroupLabels = Sequence[Any] | np.ndarray | Mapping[Any, Any]


@dataclass(frozen=True)
class Groups:
    """Training samples put together.

    Attributes
    ----------
    labels : tuple
        Of the groups, in order of first appearance.
    of_id : np.ndarray of int
        The group of each of ``run.samples.ids``.
    """

    labels: tuple[Any, ...]
    of_id: np.ndarray


@dataclass(frozen=True)
class Question:
    """What is asked of a run.

    Attributes
    ----------
    axes : frozenset of str
        Subset of ``"sample"`` (with its ``"token"``) or ``"group"``, ``"step"``, and ``"layer"`` or ``"parameter"``.
    layers : tuple of str
        Labels of the parts of the layer axis.
    partition : Partition
        For each label the slices of the flat point z that belong to it.
    first, stop : int
        Effect steps ``first … stop − 1``.
    step_of : {"use", "effect"}
        What the step axis of samples means.
    groups : Groups or None
        The groups of the group axis, if it is kept.
    terms : tuple of str
        The causes that the run tells apart, and the residual.
    """

    axes: frozenset[str]
    layers: tuple[str, ...]
    partition: Partition
    first: int
    stop: int
    tolerance: float
    step_of: StepOf
    groups: Groups | None = None
    terms: tuple[str, ...] = names.TERMS

    @property
    def keeps_groups(self) -> bool:
        """Whether the data term is split over groups of training samples."""
        return self.groups is not None

    @property
    def keeps_samples(self) -> bool:
        """Whether the data term is split over training samples."""
        return names.SAMPLE in self.axes

    @property
    def keeps_tokens(self) -> bool:
        """Whether samples are split over the positions of their losses."""
        return names.TOKEN in self.axes

    @property
    def keeps_steps(self) -> bool:
        """Whether entries are split over steps."""
        return names.STEP in self.axes

    @property
    def keeps_layers(self) -> bool:
        """Whether entries are split over layers."""
        return names.LAYER in self.axes

    @property
    def keeps_parameters(self) -> bool:
        """Whether entries are split over single weights."""
        return names.PARAMETER in self.axes


def ask(
    run: WeightPath,
    axes: Iterable[str],
    layers: Sequence[str] | None,
    steps: Iterable[int] | slice | None,
    tolerance: float,
    step_of: StepOf,
    groups: GroupLabels | None = None,
) -> Question:
    """Check a question.

    Raises
    ------
    ValueError
        With what there is to choose from.
    """
    kept = frozenset(_checked_axes(axes))
    _refuse_unknown_samples(run, kept, groups)
    if not (isinstance(tolerance, (int, float)) and 0 < tolerance < 1):
        raise ValueError(f"tolerance must be a share of the movement between 0 and 1; got {tolerance!r}.")
    if step_of not in ("use", "effect"):
        raise ValueError(f'step_of must be "use" or "effect"; got {step_of!r}.')
    if {names.SAMPLE, names.GROUP} <= set(kept):
        raise ValueError(
            f"axes may hold {names.SAMPLE!r} or {names.GROUP!r}, not both: the samples of a group add up to it."
        )
    if names.TOKEN in kept and run.graphs.token_losses is None:
        raise ValueError(
            f"This run has no {names.TOKEN} axis. It takes a loss with several values for a sample, as that of a sequence "
            f"has, and, where there are several losses, as many values in all of them, known when the model was built. "
            f"Ask for {names.SAMPLE!r} alone."
        )
    first, stop = _checked_steps(len(run.steps), steps)
    labels, partition = _partition(run, kept, layers)
    found = _groups(run, kept, groups)
    return Question(kept, labels, partition, first, stop, float(tolerance), step_of, found, run.terms)


def _groups(run: WeightPath, axes: frozenset[str], labels: GroupLabels | None) -> Groups | None:
    if labels is None and names.GROUP not in axes:
        return None
    if labels is None or names.GROUP not in axes:
        raise ValueError(
            f'The axis "{names.GROUP}" and groups= belong together: axes=("{names.GROUP}", …), groups=labels, with a label '
            f"for each of run.samples.ids (its class, its source, …)."
        )
    ids = run.samples.ids.tolist()
    if isinstance(labels, Mapping):
        missing = [key for key in ids if key not in labels]
        if missing:
            raise ValueError(
                f"groups has no label for {len(missing)} of {len(ids)} samples, for example {missing[:5]}."
            )
        labels = [labels[key] for key in ids]
    of_sample = [label.item() if isinstance(label, np.generic) else label for label in labels]
    if len(of_sample) != len(ids):
        raise ValueError(
            f"groups has {len(of_sample)} labels; the run has {len(ids)} samples. Give one for each of run.samples.ids."
        )
    positions: dict[Any, int] = {}
    of_id = np.array([positions.setdefault(label, len(positions)) for label in of_sample])
    return Groups(tuple(positions), of_id)


def _checked_axes(axes: Iterable[str]) -> tuple[str, ...]:
    kept = (axes,) if isinstance(axes, str) else tuple(axes)
    unknown = [axis for axis in kept if axis not in names.AXES]
    if unknown:
        raise ValueError(
            f"Unknown axes {unknown}. axes is any subset of {names.AXES}, with at most one of "
            f"{names.LAYER!r} and {names.PARAMETER!r}; inputs and outputs are always kept."
        )
    if {names.LAYER, names.PARAMETER} <= set(kept):
        raise ValueError(
            f"axes may hold {names.LAYER!r} or {names.PARAMETER!r}, not both: the parameters of a layer add up to it."
        )
    if names.TOKEN in kept and names.SAMPLE not in kept:
        raise ValueError(
            f"axes holds {names.TOKEN!r} without {names.SAMPLE!r}: tokens are positions within samples. Ask for both."
        )
    if {names.TOKEN, names.PARAMETER} <= set(kept):
        raise ValueError(
            f"axes may hold {names.TOKEN!r} or {names.PARAMETER!r}, not both: no gradient of a single token is ever "
            f"computed. Ask for {names.LAYER!r} instead of {names.PARAMETER!r}."
        )
    return kept


def _refuse_unknown_samples(run: WeightPath, axes: frozenset[str], groups: GroupLabels | None) -> None:
    needed = set(axes) | (set() if groups is None else {names.GROUP})
    missing = [axis for axis in names.AXES if axis in needed and axis not in run.axes]
    if missing:
        raise RefusedError(
            f"{run!r} has no {' or '.join(map(repr, missing))} axis; it has {run.axes}. Which samples moved the weights "
            f"between two checkpoints follows from the batches and the optimizer's states in between, which checkpoints do "
            f"not hold. Record the training: compile with xtf.PathAdamW or xtf.PathSGD, logger = xtf.PathLogger(run_dir), "
            f"fit(logger.tap(dataset), callbacks=[logger]), then xtf.open_run(run_dir)."
        )


def _checked_steps(count: int, steps: Iterable[int] | slice | None) -> tuple[int, int]:
    if count == 0:
        raise ValueError("The run has no whole step: there is nothing to account for.")
    if steps is None:
        return 0, count
    numbers = range(count)[steps] if isinstance(steps, slice) else list(steps)
    if len(numbers) == 0:
        raise ValueError(f"steps is empty; the run has the steps 0 … {count - 1}.")
    first, last = int(numbers[0]), int(numbers[-1])
    if list(numbers) != list(range(first, last + 1)) or first < 0 or last >= count:
        raise ValueError(
            f"steps must be consecutive numbers within 0 … {count - 1}, as in range(10, 20): a ledger accounts for a "
            f"path without gaps. To pick steps afterwards keep the axis: led.sel(step=[3, 7])."
        )
    return first, last + 1


def _partition(
    run: WeightPath, axes: frozenset[str], layers: Sequence[str] | None
) -> tuple[tuple[str, ...], Partition]:
    specs = [*run.manifest.variables, *(spec for spec in run.manifest.state if spec.is_floating)]
    offsets = np.cumsum([0, *(spec.size for spec in specs)])
    slices: dict[str, list[tuple[int, int]]] = {layer: [] for layer in run.layers}
    for spec, start in zip(specs, offsets[:-1], strict=True):
        slices[spec.layer].append((int(start), int(start) + spec.size))
    if layers is not None:
        if names.LAYER not in axes:
            raise ValueError(f'layers= picks entries of the layer axis: add "{names.LAYER}" to axes.')
        layers = [layers] if isinstance(layers, str) else list(layers)
        unknown = [layer for layer in layers if layer not in slices]
        if unknown or not layers:
            raise ValueError(f"Unknown layers {unknown}. The layers with weights are: {list(run.layers)}.")
        rest = [part for layer, parts in slices.items() if layer not in layers for part in parts]
        slices = {layer: slices[layer] for layer in layers} | ({names.OTHER_LAYERS: rest} if rest else {})
    if names.LAYER not in axes:
        return (), [[(0, int(offsets[-1]))]]
    return tuple(slices), list(slices.values())
