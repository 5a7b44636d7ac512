"""Changes of the weights that the optimizer did not make, each a term of the ledger.

The sum of all such changes in a step is known: the recorded weights at the end of the step minus the weights after the
update. A *change* explains a part of it. The part that no change explains is ``external``.
"""

from collections.abc import Callable

import numpy as np

from explaind_tf import constants as names
from explaind_tf.runs.steps import Transition

# Maps a step to the displacement that the change explains, shape (D,).
Change = Callable[[Transition], np.ndarray]

# Changes by term. A new one needs a function, a line here, and a row in explaind_tf/terms.py.
_CHANGES: dict[str, Change] = {}


def register(term: str, change: Change) -> None:
    """Add a change of another package. Its term must be registered as well.

    Raises
    ------
    ValueError
        If the term already has a change.
    """
    if term in _CHANGES:
        raise ValueError(
            f"The term {term!r} already has a change. Register each term once, or choose another term."
        )
    _CHANGES[term] = change


def changes_of(transition: Transition) -> dict[str, np.ndarray]:
    """Return the displacement in a step that is not the optimizer's, by term, shape (D,); ``external`` is the rest."""
    left = transition.theta_end - transition.theta_stepped
    found = {}
    for term, change in _CHANGES.items():
        found[term] = change(transition)
        left = left - found[term]
    return {**found, names.EXTERNAL: left}
