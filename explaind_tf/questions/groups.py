"""Groups: training samples that share a label given by the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from explaind_tf import constants as names
from explaind_tf.questions.options import GroupLabels


@dataclass(frozen=True)
class Groups:
    """Training samples, put into groups.

    Attributes
    ----------
    labels : tuple
        Labels of the groups, in order of first appearance.
    of_id : np.ndarray of int
        The group of each of ``run.samples.ids``.
    """

    labels: tuple[Any, ...]
    of_id: np.ndarray


def make_groups(ids: Sequence[Any], labels: GroupLabels | None, *, is_asked: bool) -> Groups | None:
    """Return the groups of samples, or None if neither the axis nor labels were given.

    Raises
    ------
    ValueError
        If only one of them was given, or labels are missing.
    """
    if labels is None and not is_asked:
        return None
    if labels is None or not is_asked:
        raise ValueError(
            f'The axis "{names.GROUP}" and groups= belong together, and only one of them was given. Write '
            f'axes=("{names.GROUP}", …), groups=labels, with a label for each of run.samples.ids (its class, its source, …).'
        )
    if isinstance(labels, Mapping):
        missing = [key for key in ids if key not in labels]
        if missing:
            raise ValueError(
                f"groups has no label for {len(missing)} of {len(ids)} samples, for example {missing[:5]}. Give one for "
                f"each of run.samples.ids."
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
