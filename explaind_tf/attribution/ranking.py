"""A warning where the ranking of samples rests on entries that are poorly conditioned."""

import warnings

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.conditioning import by_sample

# So many of the strongest samples are compared.
_TOP = 10


def warn_of_ranking(ledger: xr.Dataset | xr.DataTree) -> None:
    """Warn if the strongest samples of an input are others without the part through cancelled gradients.

    Warns
    -----
    UserWarning
        With the number of inputs for which this is so.
    """
    parts = [node.to_dataset() for node in ledger.subtree] if isinstance(ledger, xr.DataTree) else [ledger]
    whole = np.sum([by_sample(part[names.DATA]).values for part in parts if names.DATA in part], axis=0)
    sound = whole - by_sample(parts[0][names.CANCELLED]).values
    hanging = sum(
        any(_strongest(one) != _strongest(other) for one, other in zip(of_input, of_sound, strict=True))
        for of_input, of_sound in zip(whole, sound, strict=True)
    )
    if hanging:
        warnings.warn(
            f"For {hanging} of {len(whole)} inputs the {_TOP} strongest samples would be others without the weights whose "
            f"gradients nearly cancelled in their batch. ledger.explaind.conditioning() says which entries rest on them, "
            f'and dtype="float64" settles how far rounding changes them.',
            stacklevel=4,
        )


def _strongest(entries: np.ndarray) -> set[int]:
    """Return the samples with the largest entries, without regard to sign."""
    return set(np.argsort(-np.abs(entries), kind="stable")[:_TOP].tolist())
