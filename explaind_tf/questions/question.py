"""`Question`: options, checked against what a run can give."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

from explaind_tf import constants as names
from explaind_tf.errors import RefusedError
from explaind_tf.kernel.contractions import Partition
from explaind_tf.levels import MEANING
from explaind_tf.questions.groups import Groups, make_groups
from explaind_tf.questions.options import Options
from explaind_tf.runs import WeightPath


@dataclass(frozen=True)
class Question:
    """What is asked of a run.

    Attributes
    ----------
    options : Options
        As the user gave them.
    layers : tuple of str
        Labels of the layer axis.
    partition : Partition
        For each label, the slices of the flat point z that belong to it.
    first, stop : int
        The effect steps are ``first … stop − 1``.
    groups : Groups or None
        The groups of the group axis, if that is kept.
    dtype : tf.DType
        Precision of the analysis.
    terms : tuple of str
        The causes that the run and the axes can tell apart, and the residual.
    """

    options: Options
    layers: tuple[str, ...]
    partition: Partition
    first: int
    stop: int
    groups: Groups | None
    dtype: tf.DType
    terms: tuple[str, ...]

    @property
    def axes(self) -> frozenset[str]:
        """The axes that are kept, beside input and output."""
        return self.options.kept

    @property
    def tolerance(self) -> float:
        """Largest residual allowed, as a share of an input's movement."""
        return float(self.options.tolerance)

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

    def without(self, term: str) -> "Question":
        """Return the question without a term that its answer cannot have."""
        return replace(self, terms=tuple(name for name in self.terms if name != term))


def ask(run: WeightPath, options: Options) -> Question:
    """Return the question that options ask of a run.

    Raises
    ------
    RefusedError
        If the run has no such axis.
    ValueError
        If the run has no such tokens, steps, layers or samples; the message lists what it has.
    """
    _refuse_unknown_samples(run, options)
    kept = options.kept
    if names.TOKEN in kept and run.graphs.functions.token_losses is None:
        raise ValueError(
            f"This run has no {names.TOKEN} axis. That axis needs a loss with several values for a sample, as sequences "
            f"have. Several losses need the same number of values, known when the model was built. Ask for "
            f"{names.SAMPLE!r} alone."
        )
    first, stop = _checked_steps(len(run.steps), options.steps)
    labels, partition = _partition(run, kept, options.layers)
    needs_groups = names.GROUP in kept
    ids = run.samples.ids.tolist() if needs_groups else []
    groups = make_groups(ids, options.groups, is_asked=needs_groups)
    dtype = _checked_dtype(run, options.dtype)
    left_out = set() if kept & {names.SAMPLE, names.TOKEN, names.GROUP} else {names.ROUNDING}
    if not run.computes_otherwise(dtype):
        left_out.add(names.PRECISION)
    terms = tuple(name for name in run.terms if name not in left_out)
    return Question(options, labels, partition, first, stop, groups, dtype, terms)


def _checked_dtype(run: WeightPath, dtype: str | None) -> tf.DType:
    wanted = run.weights_dtype if dtype is None else tf.dtypes.as_dtype(dtype)
    if wanted.size < run.weights_dtype.size:
        raise ValueError(
            f"dtype={dtype!r} is less precise than the run, whose weights are {run.weights_dtype.name}. Leave dtype out."
        )
    return wanted


def _refuse_unknown_samples(run: WeightPath, options: Options) -> None:
    needed = options.kept | (set() if options.groups is None else {names.GROUP})
    missing = [axis for axis in names.AXES if axis in needed and axis not in run.axes]
    if missing:
        raise RefusedError(
            f"{run!r} has no {' or '.join(map(repr, missing))} axis; it has {run.axes}. {_why_none(run)}"
        )


def _why_none(run: WeightPath) -> str:
    if run.manifest.level_reason:
        return (
            f"It has the level {run.manifest.level!r}, {MEANING[run.manifest.level]}, since more is not recorded: "
            f"{run.manifest.level_reason}"
        )
    return (
        "Checkpoints hold neither the batches nor the optimizer states between them, and only these tell which samples "
        "moved the weights. Record the training: compile with xtf.PathAdamW or the like of another "
        "optimizer, fit(x, y, callbacks=[xtf.PathLogger(run_dir)]), then xtf.open_run(run_dir)."
    )


def _checked_steps(count: int, steps: Iterable[int] | slice | None) -> tuple[int, int]:
    if count == 0:
        raise ValueError(
            "The run has no whole step, so there is no change to account for. Record at least one step."
        )
    if steps is None:
        return 0, count
    numbers = range(count)[steps] if isinstance(steps, slice) else list(steps)
    if len(numbers) == 0:
        raise ValueError(
            f"steps is empty; the run has the steps 0 … {count - 1}. Leave steps out to account for all of them."
        )
    first, last = int(numbers[0]), int(numbers[-1])
    if list(numbers) != list(range(first, last + 1)) or first < 0 or last >= count:
        raise ValueError(
            f"steps must be consecutive numbers within 0 … {count - 1}, as in range(10, 20); got {len(numbers)} numbers "
            f"from {first} to {last}. A ledger accounts for a path without gaps. To pick single steps, keep the axis "
            f'"{names.STEP}" and select afterwards: led.sel(step=[3, 7]).'
        )
    return first, last + 1


def _partition(
    run: WeightPath, axes: frozenset[str], layers: Sequence[str] | None
) -> tuple[tuple[str, ...], Partition]:
    state = zip(run.manifest.state, run.moving, strict=True)
    specs = [*run.manifest.variables, *(spec for spec, moves in state if moves)]
    offsets = np.cumsum([0, *(spec.size for spec in specs)])
    slices: dict[str, list[tuple[int, int]]] = {layer: [] for layer in run.layers}
    for spec, start in zip(specs, offsets[:-1], strict=True):
        slices[spec.layer].append((int(start), int(start) + spec.size))
    if layers is not None:
        if names.LAYER not in axes:
            raise ValueError(
                f'layers= was given without the axis that it selects from. Add "{names.LAYER}" to axes.'
            )
        layers = [layers] if isinstance(layers, str) else list(layers)
        unknown = [layer for layer in layers if layer not in slices]
        if unknown or not layers:
            raise ValueError(
                f"layers must name at least one layer with weights; unknown: {unknown}. The layers with weights are: "
                f"{list(run.layers)}."
            )
        rest = [part for layer, parts in slices.items() if layer not in layers for part in parts]
        slices = {layer: slices[layer] for layer in layers} | ({names.OTHER_LAYERS: rest} if rest else {})
    if names.LAYER not in axes:
        return (), [[(0, int(offsets[-1]))]]
    return tuple(slices), list(slices.values())
