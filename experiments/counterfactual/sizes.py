"""Sizes of the experiment, full and quick, and its trainings."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Network:
    """A network of one hidden layer, trained by AdamW.

    Attributes
    ----------
    activation : str
        Of the hidden layer.
    epsilon, rate : float
        ε and the learning rate of AdamW. Its weight decay is 0.01.
    halves : bool
        Whether the mean of the derivative at random halves is measured, too.
    """

    activation: str
    epsilon: float
    rate: float
    halves: bool = False

    @property
    def name(self) -> str:
        """The network in words."""
        return f"{self.activation}, ε {self.epsilon:g}, learning rate {self.rate:g}"


NETWORKS = (
    Network("relu", 1e-7, 5e-3, halves=True),
    Network("relu", 1e-3, 5e-3, halves=True),
    Network("gelu", 1e-7, 1e-3),
    Network("gelu", 1e-3, 5e-3),
)


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment.

    Attributes
    ----------
    networks : tuple of Network
        The trainings on digits.
    models : tuple of str
        Larger models.
    samples, inputs : int
        Training samples and held-out inputs: digits of 8 × 8 pixels.
    units, steps, batch : int
        Units of the hidden layer, steps and batch size of each training.
    shares : tuple of float
        Shares of the samples that are left out.
    retrainings : int
        How often each share is left out.
    singles : int
        How many samples are left out alone.
    repeats : int
        Random halves at which the derivative is averaged.
    model_steps, model_inputs : int
        Steps and held-out inputs of the larger models.
    seeds : tuple of int
        Seeds, each of data, weights, batches and subsets.
    """

    networks: tuple[Network, ...] = NETWORKS
    models: tuple[str, ...] = ("ResNet-9", "Transformer")
    samples: int = 600
    inputs: int = 50
    units: int = 32
    steps: int = 150
    batch: int = 64
    shares: tuple[float, ...] = (0.01, 0.05, 0.1, 0.5)
    retrainings: int = 24
    singles: int = 24
    repeats: int = 16
    model_steps: int = 60
    model_inputs: int = 8
    seeds: tuple[int, ...] = (0, 1, 2)


QUICK = Settings(
    networks=(Network("gelu", 1e-3, 1e-2, halves=True),),
    models=(),
    samples=40,
    inputs=4,
    units=4,
    steps=4,
    batch=20,
    shares=(0.1, 0.5),
    retrainings=3,
    singles=3,
    repeats=2,
    seeds=(0,),
)
