"""The table of the terms of a ledger: the axes, label, colour and meaning of each.

``final − initial`` is the sum of all terms over all their axes. A new term needs one row here and code that adds entries.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any, Final, Literal

from explaind_tf import constants as names

# What is known of the steps: what moved the weights, or no more than checkpoints show. Runs of the level "path" are like
# series of checkpoints.
Source = Literal["recorded", "checkpoints"]

_PARTS: Final = frozenset((names.LAYER, names.PARAMETER))
_DATA_AXES: Final = _PARTS | {names.SAMPLE, names.TOKEN, names.GROUP, names.STEP}


@dataclass(frozen=True)
class Term:
    """One term of a ledger.

    Attributes
    ----------
    name : str
        Name of its data variable.
    axes : frozenset of str
        The axes that it can be split over, besides input and output.
    label : str
        Its name in figures and tables.
    colour : str
        Its colour in figures, as ``#rrggbb``.
    description : str
        Its ``long_name`` in the ledger.
    meaning : str
        What it is, in words, for a reader of the report.
    sources : tuple of {"recorded", "checkpoints"}
        The sources whose ledgers have it.
    is_optional : bool
        Whether some ledgers of these sources lack it, for example those of an earlier version.
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
        """Return the names of its dimensions, in order, in a ledger with the given axes."""
        split = [axis for axis in names.AXES if axis in kept and axis in self.axes]
        # The axes of the data come first, the step last.
        split.sort(key=lambda axis: axis == names.STEP)
        return names.INPUT, names.OUTPUT, *split


# Colours after Paul Tol's schemes: colour-blind readers can tell them apart, and they are legible on white and near-black.
# None is the blue or the red that stands for a sign.
_TABLE: dict[str, Term] = {
    term.name: term
    for term in (
        Term(
            names.DATA,
            _DATA_AXES,
            "training data",
            "#44AA99",
            "change by the gradients of training samples",
            "the gradients of the training samples, each entered under the sample it came from",
        ),
        Term(
            names.ROUNDING,
            _PARTS | {names.STEP},
            "rounding of gradients",
            "#AAAA00",
            "change by the gradients that the optimizer used, less the sum of the samples' gradients",
            "the rounding of gradients in training: what the optimizer used beside the sum of the samples' gradients",
            is_optional=True,
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
            is_optional=True,
        ),
        Term(
            names.CARRYOVER,
            _PARTS | {names.STEP},
            "carried-over momentum",
            "#AA4499",
            "change by momentum from before the recorded run (zero for a fresh optimizer)",
            "momentum left in the optimizer by training before the recording",
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
            "change by the displacement of trained weights, not split by cause",
            "the displacement of the trained weights from one step or checkpoint to the next, whatever caused it",
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
            names.PRECISION,
            frozenset((names.STEP,)),
            "low precision",
            "#997700",
            "change of what the model predicts less what it would predict in the precision of the analysis",
            "low precision: how far the prediction of the model as it is left that of the same model in float32",
            sources=("recorded", "checkpoints"),
            is_optional=True,
        ),
        Term(
            names.JUMPS,
            frozenset((names.STEP,)),
            "jumps",
            "#882255",
            "change where the model jumps: through rounding, signs, or choices of the largest",
            "places at which the model's prediction jumps while the weights move on, such as a rounded value",
            sources=("recorded", "checkpoints"),
            is_optional=True,
        ),
        Term(
            names.RESIDUAL,
            frozenset((names.STEP,)),
            # "Residual" would be read as a residual connection beside layers called res1_conv1.
            "unexplained",
            "#777777",
            "what the other entries do not explain: quadrature error and rounding",
            "the residual: numerical error that no other entry explains, no more than the tolerance allows",
            sources=("recorded", "checkpoints"),
        ),
    )
}

# Data variables of every ledger that are not terms: the values between which the terms lead.
OUTPUT_DESCRIPTIONS: Final = {
    names.INITIAL: "measurement before training",
    names.FINAL: "measurement after training",
}

# Data variables of ledgers with conditioning=True, by input, output and sample. They are parts of `data`, not terms.
SAMPLE_DESCRIPTIONS: Final = {
    names.CANCELLED: "part of data through weights whose gradient nearly cancelled in the sample's batch",
}


def register(term: Term) -> None:
    """Add a term of another package. It comes before the residual.

    Raises
    ------
    ValueError
        If the name is taken.
    """
    if term.name in {*_TABLE, *OUTPUT_DESCRIPTIONS, *SAMPLE_DESCRIPTIONS}:
        raise ValueError(f"Ledgers already have a variable {term.name!r}. Choose another name for the term.")
    residual = _TABLE.pop(names.RESIDUAL)
    _TABLE[term.name] = term
    _TABLE[names.RESIDUAL] = residual


def term(name: str) -> Term:
    """Return the term of a name.

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
    """Return the names of the terms of a source's ledgers, in order; the residual is the last."""
    return tuple(name for name, row in _TABLE.items() if source in row.sources)


def terms_in(ledger: Container[Any]) -> tuple[str, ...]:
    """Return the names of the terms that a ledger must have, and of the optional ones that it has."""
    source: Source = "checkpoints" if names.WEIGHTS in ledger else "recorded"
    return tuple(name for name in terms_of(source) if name in ledger or not _TABLE[name].is_optional)


def label(name: str) -> str:
    """Return the name of a term in figures and tables."""
    return _TABLE[name].label
