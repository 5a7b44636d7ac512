"""Changes of the weights that are not the optimizer's, each a term of the ledger.

What something else did to the weights after an update, or between two steps, is known: it is the recorded weights at the
end of the step less those that the update led to. A *change* explains a part of it; what none explains is ``external``.
"""

from collections.abc import Callable

import numpy as np

from explaind_tf import constants as names
from explaind_tf.runs.steps import Transition

# From a step to the displacement that the change explains, shape (D,).
Change = Callable[[Transition], np.ndarray]

# By term. A new change is one function, one line here, and a row of explaind_tf/terms.py.
_CHANGES: dict[str, Change] = {}


def register(term: str, change: Change) -> None:
    """Add a change of another package; its term must be registered as well.

    Raises
    ------
    ValueError
        If the term is booked by another change.
    """
    if term in _CHANGES:
        raise ValueError(f"There is a change that books {term!r} already.")
    _CHANGES[term] = change


def changes_of(transition: Transition) -> dict[str, np.ndarray]:
    """Return what moved the weights in a step beside the optimizer, by term, shape (D,); ``external`` is the rest."""
    left = transition.theta_end - transition.theta_stepped
    found = {}
    for term, change in _CHANGES.items():
        found[term] = change(transition)
        left = left - found[term]
    return {**found, names.EXTERNAL: left}
