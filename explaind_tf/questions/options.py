"""`Options`: the options of a question, each with its default, its meaning and its checks.

A new option is one field here, with its paragraph in the docstring: ``Run.attribute``, ``Run.plan``, the command line and
their documentation are made from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from explaind_tf import constants as names

StepOf = Literal["use", "effect"]
# A label for each sample: in the order of ``run.samples.ids``, or by id.
GroupLabels = Sequence[Any] | np.ndarray | Mapping[Any, Any]


def _told(help: str, *, changes_ledger: bool = True) -> dict[str, Any]:
    """Return what is said of an option: a line of help, and whether a ledger depends on it or only the work for it."""
    return {"help": help, "changes_ledger": changes_ledger}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a question.

    Attributes
    ----------
    axes : iterable of str
        Any subset of ``"sample"`` or ``"group"``, ``"step"``, and ``"layer"`` or ``"parameter"``. Inputs and outputs are
        always kept; axes that are not asked for are not computed. With ``"sample"`` also ``"token"``, where a sample
        has several losses (sequences): what that of each of its positions contributed, counted from 0 in the order
        of the loss's values. Masked positions, and those that only longer samples have, are zero.
    layers : sequence of str, optional
        Layers to tell apart on the layer axis; the rest is kept as one entry, so that the ledger balances.
    steps : consecutive step numbers or slice, optional
        Account for the change during these steps only; by default the whole run.
    groups : sequence or mapping, optional
        With the axis ``"group"``: a label (class, source, …) for each of ``run.samples.ids``, or by id. The data term
        is then split over groups of samples instead of samples; its step is the one in which the prediction moved.
    step_of : {"use", "effect"}
        With samples and steps: whether a step is the one that had the sample in its batch, or the one in
        which, through momentum, the prediction moved. ``"effect"`` holds the rows of a whole momentum window:
        up to log(eps)/log(β₁) times the memory and time.
    tolerance : float
        Largest residual, as a share of the input's movement (the largest distance of any of its outputs from its
        initial value during training).
    batch_size : int, optional
        Inputs measured at once; by default as many as fit into 256 MB of activations.
    memory_limit : int, optional
        Bytes that the computation may take beside the ledger itself; by default half of the machine's memory. Less
        memory means smaller blocks, and more passes.
    max_nodes : int
        Most quadrature nodes for one input in one step.

    Raises
    ------
    ValueError
        If a value means nothing, whatever the run. What a run cannot give is refused when it is asked.
    """

    axes: Iterable[str] = field(
        default=(), metadata=_told("What to split by, of sample, token, step, layer, parameter.")
    )
    layers: Sequence[str] | None = field(
        default=None, metadata=_told("Layers to tell apart; the rest is one entry.")
    )
    steps: Iterable[int] | slice | None = field(
        default=None, metadata=_told("Steps to account for; by default all.")
    )
    groups: GroupLabels | None = field(default=None, metadata=_told("A label for each training sample."))
    step_of: StepOf = field(
        default="use",
        metadata=_told("With samples: the step that used the sample, or that in which it took effect."),
    )
    tolerance: float = field(
        default=1e-3,
        metadata=_told("Largest residual, as a share of how far an input's outputs went during training."),
    )
    batch_size: int | None = field(
        default=None, metadata=_told("Inputs measured at once.", changes_ledger=False)
    )
    memory_limit: int | None = field(
        default=None,
        metadata=_told(
            "What may be used beside the ledger; by default half of the memory.", changes_ledger=False
        ),
    )
    max_nodes: int = field(default=2187, metadata=_told("Most quadrature nodes of an input in a step."))

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _checked_axes(self.axes))
        if not (isinstance(self.tolerance, (int, float)) and 0 < self.tolerance < 1):
            raise ValueError(
                f"tolerance must be a share of the movement between 0 and 1; got {self.tolerance!r}."
            )
        if self.step_of not in ("use", "effect"):
            raise ValueError(f'step_of must be "use" or "effect"; got {self.step_of!r}.')
        for name in ("batch_size", "memory_limit", "max_nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be a positive number; got {value!r}.")

    @property
    def kept(self) -> frozenset[str]:
        """The axes that are kept."""
        return frozenset(self.axes)


def make_options(caller: str, **options: Any) -> Options:
    """Return options from the keyword arguments of a public function.

    Raises
    ------
    TypeError
        At a name that is no option, with those that there are.
    """
    known = [entry.name for entry in fields(Options)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise TypeError(
            f"{caller}() has no option {', '.join(map(repr, unknown))}; there are: {', '.join(known)}."
        )
    return Options(**options)


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
    if {names.SAMPLE, names.GROUP} <= set(kept):
        raise ValueError(
            f"axes may hold {names.SAMPLE!r} or {names.GROUP!r}, not both: the samples of a group add up to it."
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
