"""The terms of a ledger, one row for each: its axes, and how people are told of it.

``final − initial`` is the sum of all terms over all their axes. A new term is one row here, and whatever books it.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final, Literal

from explaind_tf import constants as names

# What books a term: a recorded run, or a mere series of checkpoints.
Source = Literal["recorded", "checkpoints"]

_PARTS: Final = frozenset((names.LAYER, names.PARAMETER))
_DATA_AXES: Final = _PARTS | {names.SAMPLE, names.TOKEN, names.GROUP, names.STEP}


@dataclass(frozen=True)
class Term:
    """One term of a ledger.

    Attributes
    ----------
    name : str
        Of its data variable.
    axes : frozenset of str
        The axes that it can be split over, beside input and output.
    label : str
        In figures and tables.
    colour : str
        In figures, as ``#rrggbb``.
    description : str
        Its ``long_name`` in the ledger.
    meaning : str
        For a reader of the report, in words.
    sources : tuple of {"recorded", "checkpoints"}
        Whose ledgers have it.
    is_optional : bool
        Whether there are ledgers of such a source without it, for example of an earlier version.
    """

    name: str
    axes: frozenset[str]
    label: str
    colour: str
    description: str
    meaning: str
    sources: tuple[Source, ...] = ("recorded",)
    is_optional: bool = False

    def dims(self, kept: Container[str]) -> tuple[str, ...]:
        """Return the names of its dimensions, in order, in a ledger that keeps some axes."""
        split = [axis for axis in names.AXES if axis in kept and axis in self.axes]
        # The axes of the data come first, the step last.
        split.sort(key=lambda axis: axis == names.STEP)
        return names.INPUT, names.OUTPUT, *split


# Colours after Paul Tol's schemes: told apart by the colour-blind too, and legible on white as on near-black. None is the
# blue or the red that means a sign.
_TABLE: dict[str, Term] = {
    term.name: term
    for term in (
        Term(
            names.DATA,
            _DATA_AXES,
            "training data",
            "#44AA99",
            "change by the gradients of training samples",
            "the gradients of the training samples, each booked to the sample it came from",
        ),
        Term(
            names.WEIGHT_DECAY,
            _PARTS | {names.STEP},
            "weight decay",
            "#CCAA33",
            "change by weight decay",
            "the optimizer pulling all weights towards zero",
        ),
        Term(
            names.REGULARIZER,
            _PARTS | {names.STEP},
            "loss regularisers",
            "#117733",
            "change by the gradients of loss regularisers",
            "the gradients of penalties that were added to the loss",
        ),
        Term(
            names.CARRYOVER,
            _PARTS | {names.STEP},
            "carried-over momentum",
            "#AA4499",
            "change by momentum from before the recorded run",
            "momentum that the optimizer brought along from before the recording",
        ),
        Term(
            names.EXTERNAL,
            _PARTS | {names.STEP},
            "external changes",
            "#EE8866",
            "change by weights that something other than the optimizer set",
            "weights that something other than the optimizer set",
        ),
        Term(
            names.WEIGHTS,
            _PARTS | {names.STEP},
            "trained weights",
            "#44AA99",  # never beside the training data
            "change by the displacement of trained weights, its causes not told apart",
            "the way of the trained weights from one checkpoint to the next, whatever caused it",
            sources=("checkpoints",),
        ),
        Term(
            names.STATE,
            frozenset((names.LAYER, names.STEP)),
            "state drift",
            "#88CCEE",
            "change by the drift of non-trainable variables (BatchNorm statistics)",
            "values that change without a gradient, such as the averages that BatchNorm keeps",
            sources=("recorded", "checkpoints"),
        ),
        Term(
            names.RESIDUAL,
            frozenset((names.STEP,)),
            "residual",
            "#777777",
            "what the other entries do not explain: quadrature error and rounding",
            "what the other entries do not explain: numerical error, and no more than was allowed",
            sources=("recorded", "checkpoints"),
        ),
    )
}

# What the terms lead from and to: no terms, but data variables of every ledger.
OUTPUT_DESCRIPTIONS: Final = {
    names.INITIAL: "measurement before training",
    names.FINAL: "measurement after training",
}


def register(term: Term) -> None:
    """Add a term of another package, before the residual.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if term.name in _TABLE or term.name in OUTPUT_DESCRIPTIONS:
        raise ValueError(f"There is a variable {term.name!r} in ledgers already. Choose another name.")
    residual = _TABLE.pop(names.RESIDUAL)
    _TABLE[term.name] = term
    _TABLE[names.RESIDUAL] = residual


def term(name: str) -> Term:
    """Return a term by its name.

    Raises
    ------
    KeyError
        If there is none.
    """
    return _TABLE[name]


def all_terms() -> tuple[str, ...]:
    """Return the names of all terms, in order."""
    return tuple(_TABLE)


def terms_of(source: Source) -> tuple[str, ...]:
    """Return the names of the terms that a source books, in order; the residual is the last."""
    return tuple(name for name, row in _TABLE.items() if source in row.sources)


def terms_in(ledger: Container[Any]) -> tuple[str, ...]:
    """Return the names of the terms that a ledger must have, or has, from the variables that it holds."""
    source: Source = "checkpoints" if names.WEIGHTS in ledger else "recorded"
    return tuple(name for name in terms_of(source) if name in ledger or not _TABLE[name].is_optional)


def label(name: str) -> str:
    """Return how a term is called in figures and tables."""
    return _TABLE[name].label
