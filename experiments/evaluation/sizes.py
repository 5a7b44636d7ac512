"""Sizes of the evaluation, full and quick."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    samples, inputs : int
        Training samples and held-out inputs: digits of 8 × 8 pixels.
    units : int
        Units of the hidden layer.
    steps, batch : int
        Steps and batch size of each training.
    flipped : float
        Share of labels that are set to another class for the detection of mislabelled samples.
    subsets : int
        Random halves of the training samples on which models are trained again.
    groups : int
        Groups of samples of one class that are left out in turn.
    repeats : int
        Trainings on each subset, with different initial weights and batches. The outcome is their mean.
    seeds : tuple of int
        One seed, of data, weights and batches of the runs that are accounted for.
    """

    samples: int = 600
    inputs: int = 100
    units: int = 32
    steps: int = 150
    batch: int = 64
    flipped: float = 0.1
    subsets: int = 50
    groups: int = 30
    repeats: int = 3
    seeds: tuple[int, ...] = (0,)


QUICK = Settings(samples=60, inputs=10, units=4, steps=4, batch=30, subsets=4, groups=4, repeats=1)
