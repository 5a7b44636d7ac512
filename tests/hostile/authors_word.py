"""What only the author of a run can answer for: nothing else in the run says the same, so nothing can contradict it."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf


@dataclass(frozen=True)
class Word:
    """What nothing contradicts.

    Attributes
    ----------
    places : tuple of str
        Patterns of places, see `Mutant.place`.
    what : str
        What it is, as in docs/how-to/strangers.md.
    most : float
        By how much entries of a ledger may differ without being contradicted, as a share of the movement.
    """

    places: tuple[str, ...]
    what: str
    most: float = inf


AUTHORS_WORD = (
    Word(
        ("manifest: environment*", "manifest: created", "manifest: level_reason"),
        "Where, when and how it was recorded",
    ),
    Word(
        (
            *("manifest: variables/*/path", "manifest: state/*/path", "manifest: optimizer_state*"),
            *("manifest: variables/*", "manifest: state/*", "manifest: loss*", "manifest: every"),
            *("manifest: inputs*", "manifest: targets*", "manifest: outputs*"),
        ),
        "Names of variables, layers, losses, inputs and outputs",
    ),
    Word(("samples: id",), "Ids of samples"),
    Word(("samples: tensors*",), "Samples whose gradient stays the same but for rounding", most=0.02),
    Word(("steps: state", "steps: state_before"), "Values of variables that are not weights"),
    Word(("steps: order of records", "steps: bytes of the file"), "Where training ended"),
    Word(
        (
            *("steps: theta", "steps: momentum", "steps: second_moment", "steps: learning_rate"),
            *("steps: theta_stepped", "steps: theta_before", "steps: optimizer", "steps: weights"),
            *("steps: accumulated", "steps: clip_factors", "manifest: optimizer*"),
        ),
        "Changes of a step within the margins of its checks",
        most=0.02,
    ),
    Word(("graphs:*",), "The functions themselves"),
)


def is_authors_word(place: str, difference: float) -> bool:
    """Return whether nothing in a run contradicts a difference of a ledger that comes from a place."""
    return any(
        fnmatchcase(place, pattern) and difference <= word.most
        for word in AUTHORS_WORD
        for pattern in word.places
    )
