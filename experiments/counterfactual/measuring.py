"""What is measured of one training: how well responses foretell retraining, and how smooth it is."""

from typing import Any

import numpy as np
import xarray as xr

import explaind_tf as xtf
from experiments.counterfactual.sizes import Settings
from explaind_tf import measurements

# One sample left out, instead of a share.
SINGLE = "one sample"


def measured(
    run: xtf.Run, test: tuple[np.ndarray, np.ndarray], settings: Settings, seed: int
) -> dict[str, Any]:
    """Return smoothness, and the correlation of foretold with found changes by share, for the recorded training."""
    of = measurements.log_prob(test[1])
    answer = run.counterfactual(test[0], of, progress=False)
    return {
        "smoothness": run.smoothness(seed=seed, progress=False).value,
        **by_share(answer, settings, seed),
        SINGLE: _of_singles(run, answer, test, settings, seed),
    }


def at_halves(
    run: xtf.Run, test: tuple[np.ndarray, np.ndarray], settings: Settings, seed: int
) -> dict[str, Any]:
    """Return the correlations of the mean of the derivative at random halves."""
    of = measurements.log_prob(test[1])
    options = {"at": "halves", "repeats": settings.repeats, "seed": seed}
    return by_share(run.counterfactual(test[0], of, progress=False, **options), settings, seed)


def by_share(answer: xr.Dataset, settings: Settings, seed: int) -> dict[str, float]:
    """Return Spearman's correlation over retrainings, mean over inputs, for each share that is left out."""
    verdicts = {
        share: answer.explaind.validate(settings.retrainings, share, seed=seed) for share in settings.shares
    }
    return {f"{share:.0%}": verdict.correlation.value for share, verdict in verdicts.items()}


def _of_singles(
    run: xtf.Run, answer: xr.Dataset, test: tuple[np.ndarray, np.ndarray], settings: Settings, seed: int
) -> float:
    """Return Pearson's correlation over samples of the foretold with the found change, mean over inputs."""
    chosen = np.random.default_rng(seed).choice(run.samples.ids, settings.singles, replace=False)
    of = measurements.log_prob(test[1])
    foretold = -answer.response.sel(sample=chosen).values[:, 0]
    found = np.stack(
        [
            (run.retrain({sample: 0}, progress=False).measure(test[0], of) - answer.final).values[:, 0]
            for sample in chosen
        ],
        axis=-1,
    )
    return float(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(foretold, found, strict=True)]))
