"""`Options`: the options of a question, each with its default, its meaning and its checks.

A new option is one field here, with its paragraph in the docstring. ``Run.attribute``, ``Run.plan``, the command line and
their documentation are made from it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np

from explaind_tf import constants as names

StepOf = Literal["use", "effect"]
Dtype = Literal["float32", "float64"]
# A label for each sample: in the order of ``run.samples.ids``, or by id.
GroupLabels = Sequence[Any] | np.ndarray | Mapping[Any, Any]


def _told(help: str, *, changes_ledger: bool = True) -> dict[str, Any]:
    """Return an option's metadata: its line of help, and whether the ledger's values depend on it or only the work does."""
    return {"help": help, "changes_ledger": changes_ledger}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a question.

    Attributes
    ----------
    axes : iterable of str
        What to split the change by: any subset of ``"sample"`` or ``"group"``, ``"step"``, and ``"layer"`` or
        ``"parameter"``. Inputs and outputs are always kept. Other axes are computed only if you ask for them. If a sample
        has several losses, as a sequence has, ``"token"`` may be added to ``"sample"``. It gives the contribution of the
        loss of each position, counted from 0 in the order of the loss's values; masked positions, and those that only
        longer samples have, are zero. Only the term ``data`` is split over samples, tokens or groups. ``state`` never is,
        though samples cause it: no gradient moves BatchNorm's statistics, and a whole batch sets them together.
    layers : sequence of str, optional
        With the axis ``"layer"``: the layers that get an entry of their own. All other layers share one entry, which
        keeps the ledger balanced.
    steps : consecutive step numbers or slice, optional
        Account for the change during these steps only. Initial value, final value and movement are then those of these
        steps. By default all steps of the run.
    groups : sequence or mapping, optional
        With the axis ``"group"``: a label (class, source, …) for each of ``run.samples.ids``, or a mapping from ids to
        labels. The term ``data`` is then split over groups of samples. Its step is the effect step: the one in which
        the prediction moved.
    step_of : {"use", "effect"}
        With samples and steps: what the step of an entry is. ``"use"`` is the step whose batch held the sample.
        ``"effect"`` is the step in which the prediction moved, which momentum may delay. ``"effect"`` holds the rows of
        a whole momentum window, which takes up to log(eps)/log(β₁) times the memory and time. Lion forgets no gradient: its
        window is the whole run.
    tolerance : float
        Largest residual, as a share of the input's movement. The movement is the farthest that any output of the input
        got from its initial value during training, which may be more than |final − initial|. The tolerance bounds the
        residual, which is what the *sum* of all entries misses. It does not bound the error of each entry: entries that
        are larger than the movement and cancel may be off by more. Repeat with a tenth of the tolerance to see how
        far an entry changes. A ledger is returned even if ``max_nodes`` or rounding (in float32 near 1e-5 of the
        movement) left a larger residual; ``ledger.explaind.check()`` raises then.
    batch_size : int, optional
        Number of inputs measured at once. By default as many as fit into 256 MB of activations.
    memory_limit : int, optional
        Bytes that the computation may take beside the ledger itself. By default half of the machine's memory. Less
        memory means smaller blocks and more passes.
    max_nodes : int
        Most quadrature nodes for one input in one step.
    dtype : {"float32", "float64"}, optional
        Precision of the analysis. By default that of the weights, also where layers compute in bfloat16 or float16. What the
        model as it is predicts differs from what it predicts in this precision: the term ``precision``. With ``"float64"``
        a doubtful entry of a float32 run can be settled, at two to four times the cost.
    conditioning : bool
        With the axis ``"sample"``: also find how much of each sample's entry comes from weights whose gradient nearly
        cancelled in the batch; see ``ledger.explaind.conditioning()``. It takes three backward passes for each batch, and a
        second contraction for those with such weights.

    Raises
    ------
    ValueError
        If a value is not valid for any run. Whether this run can give it is checked when it is asked.
    """

    axes: Iterable[str] = field(
        default=(),
        metadata=_told("What to split the change by: any of sample, token, step, layer, parameter."),
    )
    layers: Sequence[str] | None = field(
        default=None, metadata=_told("Layers with an entry of their own; all others share one.")
    )
    steps: Iterable[int] | slice | None = field(
        default=None, metadata=_told("Steps to account for; by default all.")
    )
    groups: GroupLabels | None = field(default=None, metadata=_told("A label for each training sample."))
    step_of: StepOf = field(
        default="use",
        metadata=_told(
            "With samples and steps: the step that used the sample, or the step in which the prediction moved."
        ),
    )
    tolerance: float = field(
        default=1e-3,
        metadata=_told(
            "Largest residual, as a share of the movement: the farthest that an input's outputs got from their start."
        ),
    )
    batch_size: int | None = field(
        default=None, metadata=_told("Inputs measured at once.", changes_ledger=False)
    )
    memory_limit: int | None = field(
        default=None,
        metadata=_told(
            "Memory to use beside the ledger; by default half of the machine's.", changes_ledger=False
        ),
    )
    max_nodes: int = field(default=2187, metadata=_told("Most quadrature nodes for one input in one step."))
    dtype: Dtype | None = field(
        default=None,
        metadata=_told("Precision of the analysis: float32 or float64; by default that of the weights."),
    )

    conditioning: bool = field(
        default=False,
        metadata=_told("With samples: also find the share of entries that rests on cancelled gradients."),
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "axes", _checked_axes(self.axes))
        if not (isinstance(self.tolerance, (int, float)) and 0 < self.tolerance < 1):
            raise ValueError(
                f"tolerance must be a share of the movement between 0 and 1, such as 1e-3; got {self.tolerance!r}."
            )
        if self.step_of not in ("use", "effect"):
            raise ValueError(f'step_of must be "use" or "effect"; got {self.step_of!r}.')
        if self.dtype not in (None, "float32", "float64"):
            raise ValueError(f'dtype must be "float32" or "float64"; got {self.dtype!r}.')
        if self.conditioning and names.SAMPLE not in self.kept:
            raise ValueError(
                f'conditioning=True is about the entries of samples: add "{names.SAMPLE}" to axes, or leave it out.'
            )
        for name in ("batch_size", "memory_limit", "max_nodes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be a positive number; got {value!r}.")

    @property
    def kept(self) -> frozenset[str]:
        """The axes that are kept, as a set."""
        return frozenset(self.axes)


def make_options(caller: str, **options: Any) -> Options:
    """Return options from the keyword arguments of a public function.

    Raises
    ------
    TypeError
        If a name is not an option; the message lists the options.
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
            f"axes may hold {names.LAYER!r} or {names.PARAMETER!r}, not both: the parameters of a layer add up to its entry."
        )
    if {names.SAMPLE, names.GROUP} <= set(kept):
        raise ValueError(
            f"axes may hold {names.SAMPLE!r} or {names.GROUP!r}, not both: the samples of a group add up to its entry."
        )
    if names.TOKEN in kept and names.SAMPLE not in kept:
        raise ValueError(
            f"axes holds {names.TOKEN!r} without {names.SAMPLE!r}: tokens are positions within samples. Ask for both."
        )
    if {names.TOKEN, names.PARAMETER} <= set(kept):
        raise ValueError(
            f"axes may hold {names.TOKEN!r} or {names.PARAMETER!r}, not both: gradients of single tokens are never "
            f"computed. Ask for {names.LAYER!r} instead of {names.PARAMETER!r}."
        )
    return kept
