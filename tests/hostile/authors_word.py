"""What only the author of a run can answer for: nothing else in the run says the same, so nothing can contradict it."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Word:
    """What nothing contradicts.

    Attributes
    ----------
    places : tuple of str
        Places, see `Mutant.place`. There are no patterns: each field is listed.
    what : str
        What it is, as in docs/how-to/strangers.md.
    why : str
        Why nothing else in the run says the same.
    most : float
        By how much entries of a ledger may differ without being contradicted, as a share of the movement.
    """

    places: tuple[str, ...]
    what: str
    why: str
    most: float = 0.0


# Of numbers in float32, which are added up in another order.
ROUNDING = 1e-5

AUTHORS_WORD = (
    Word(
        (
            *("manifest: created", "manifest: level_reason", "manifest: environment"),
            *("manifest: environment/explaind_tf", "manifest: environment/tensorflow"),
            *("manifest: environment/keras", "manifest: environment/python"),
            *("manifest: environment/devices", "manifest: environment/devices/*"),
            *("manifest: environment/jit_compile", "manifest: environment/run_eagerly"),
            *("manifest: environment/no_training_step", "manifest: environment/seconds_per_step"),
            *(
                "manifest: environment/seconds_per_step/training",
                "manifest: environment/seconds_per_step/recording",
            ),
        ),
        "Where, when and how it was recorded",
        "They are for information. No record and no graph depends on them.",
    ),
    Word(
        ("manifest: variables/*/path", "manifest: state/*/path"),
        "Names of variables and layers",
        "The functions take variables by their place. Variables whose paths have the same start are of one layer.",
        most=inf,  # a layer of another name may be joined to another one
    ),
    Word(
        (
            "manifest: optimizer_state/*/path",
            *("manifest: loss/losses/*/name", "manifest: loss/losses/*/reduction"),
        ),
        "Names of losses and of the optimizer's variables",
        "The functions hold the losses themselves, reduced. The optimizer's variables are told apart by their place.",
    ),
    Word(
        ("manifest: inputs", "manifest: targets", "manifest: outputs"),
        "Names of inputs, targets and outputs",
        "The functions take and return tensors in order. Keys, lists and tuples are how a user writes them.",
    ),
    Word(
        ("samples: id",),
        "Ids of samples",
        "An id is a name. Two samples with one id are one sample of the ledger.",
        most=inf,
    ),
    Word(
        ("samples: tensors", "samples: tensors with their fingerprint"),
        "Samples whose gradient stays the same but for rounding",
        "A batch is only contradicted by the gradient that its update used.",
        most=0.02,
    ),
    Word(
        ("steps: the last records",),
        "Where training ended",
        "A shorter training is also a training.",
        most=inf,
    ),
    Word(
        ("manifest: optimizer/clipvalue", "manifest: loss/has_regularizer"),
        "A limit that no gradient reaches, and a penalty of zero",
        "They change no step.",
    ),
    Word(
        (
            *("steps: theta", "steps: momentum", "steps: second_moment", "steps: learning_rate"),
            *("steps: theta_stepped", "steps: theta_before", "steps: optimizer", "steps: weights"),
            *("steps: accumulated", "steps: clip_factors"),
            *("manifest: variables/*/decay", "manifest: optimizer/constants/beta_1"),
            *("manifest: optimizer/constants/beta_2", "manifest: optimizer/constants/epsilon"),
            *("manifest: optimizer/constants/weight_decay", "manifest: optimizer/constants/momentum_share"),
            *("manifest: optimizer/constants/nesterov",),
        ),
        "Changes of a step within the margins of its checks",
        "A step explains its displacement up to 1 % of the largest one, and a gradient up to rounding. Constants are only "
        "known by what they do to the steps: without weight decay, no weight shows whether it would decay. So are second "
        "moments up to the rounding of the gradients.",
        most=0.02,
    ),
    Word(
        ("steps: state",),
        "Last digits of statistics",
        "What a batch leaves is compared up to rounding.",
        most=1e-4,
    ),
    Word(
        ("graphs: the forward pass",),
        "The predictions themselves",
        "The functions of losses are others, which training used, and which the gradients of the steps confirm.",
        most=inf,
    ),
)


def is_authors_word(place: str, difference: float) -> bool:
    """Return whether nothing in a run contradicts a difference of a ledger that comes from a place."""
    parts = place.split(" and ")
    words = [word for word in AUTHORS_WORD if set(parts) & set(word.places)]
    covered = {place for word in words for place in word.places}
    return covered >= set(parts) and difference <= max(ROUNDING, *(word.most for word in words))
