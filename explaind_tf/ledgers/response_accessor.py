"""The ``explaind`` accessor of counterfactual answers."""

from collections.abc import Hashable, Iterable
from typing import Any, Protocol

import numpy as np
import xarray as xr

from explaind_tf import constants as names
from explaind_tf.ledgers.strongest import Ranked

_KEPT = (names.INPUT, names.OUTPUT)


class Validate(Protocol):
    """Compares an answer with trainings without some samples."""

    def __call__(self, answer: xr.Dataset, *, retrainings: int, share: float, seed: int) -> Any:
        """Return the verdict."""
        ...


class Responses(Ranked):
    """Methods of a counterfactual answer: ``answer.explaind.proponents()`` and so on.

    Parameters
    ----------
    dataset : xarray.Dataset
        The answer.
    """

    def __init__(self, dataset: xr.Dataset) -> None:
        self._root = dataset
        self._validate: Validate | None = None

    def without(self, labels: Iterable[Hashable]) -> xr.DataArray:
        """Return how leaving samples or groups out would change the measurement, to first order: −Σ response.

        Parameters
        ----------
        labels : iterable
            Ids of samples, or labels of groups.

        Returns
        -------
        xarray.DataArray
            Dims (input, output), in units of the measurement.

        Raises
        ------
        KeyError
            If there is no such sample or group.
        """
        axis = names.GROUP if names.GROUP in self._root.response.dims else names.SAMPLE
        return -self._by(axis).sel({axis: list(labels)}).sum(axis)

    def validate(self, retrainings: int = 8, share: float = 0.05, *, seed: int = 0) -> Any:
        """Train again without some samples, and compare what is found with what the responses foretell.

        Each retraining leaves random samples out, and takes as long as the recorded training. The verdict is also added to
        ``attrs`` of this dataset, as ``verdict``.

        Parameters
        ----------
        retrainings : int
            How often to train again, 2 or more.
        share : float
            Share of the samples or groups that each leaves out, at least one.
        seed : int
            Seed of the draws.

        Returns
        -------
        Verdict
            ``print`` it. ``correlation`` is Spearman's, over retrainings, mean over measurements, with its interval.

        Raises
        ------
        ValueError
            If this is not the answer as ``run.counterfactual`` returned it, or covers some steps only.
        RefusedError
            If the run cannot be trained again.
        """
        if self._validate is None:
            raise ValueError(
                "Only an answer as run.counterfactual(...) returned it knows its run. Ask again, and validate before you "
                "select from it or save it."
            )
        check_draws(retrainings, share)
        verdict = self._validate(self._root, retrainings=retrainings, share=share, seed=seed)
        self._root.attrs[names.VERDICT] = str(verdict)
        return verdict

    def answered_by(self, validate: Validate) -> None:
        """Remember how to train again what this answer is about.

        Parameters
        ----------
        validate : callable
            Takes the answer, and what :meth:`validate` was asked.
        """
        self._validate = validate

    def _influence(self) -> xr.DataArray:
        return self._by(names.SAMPLE)

    def _by(self, axis: str) -> xr.DataArray:
        """Return the responses summed over all axes but input, output and one, in this order."""
        response = self._root[names.RESPONSE]
        if axis not in response.dims:
            raise ValueError(
                f'This answer has no {axis} axis; it has {np.array(response.dims)}. Ask with axes=("{axis}", …).'
            )
        return response.sum([dim for dim in response.dims if dim not in (*_KEPT, axis)]).transpose(
            *_KEPT, axis
        )


def check_draws(retrainings: int, share: float) -> None:
    """Refuse numbers that no validation can use.

    Raises
    ------
    ValueError
        If there are fewer than 2 retrainings, or the share of left-out samples is not between 0 and 1.
    """
    if retrainings < 2 or not 0 < share < 1:
        raise ValueError(
            f"A validation needs 2 or more retrainings, and a share between 0 and 1; got {retrainings} and {share}."
        )
