"""Sizes of the benchmarks."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

# What is passed between processes.
Json = dict[str, Any]


@dataclass(frozen=True)
class TaskSpec:
    """A model, its data and the length of its training, as passed to a part in another process.

    Attributes
    ----------
    kind : {"transformer", "resnet9"}
        The Transformer on modular addition, or the ResNet-9 on handwritten digits.
    samples, batch, steps : int
        Training samples, samples in a batch, recorded steps.
    modulus, depth, hidden : int
        Sizes of the Transformer: p, ``d_model``, ``d_mlp``.
    width, side, batch_norm : float, int, bool
        The ResNet-9: factor on its channels, side of an image, whether it has BatchNorm.
    seed : int
        Seed of weights, batches and the split of the data.
    """

    kind: str
    samples: int
    batch: int
    steps: int
    modulus: int = 113
    depth: int = 64
    hidden: int = 512
    width: float = 1.0
    side: int = 32
    batch_norm: bool = False
    seed: int = 0

    @property
    def key(self) -> str:
        """Name of the run's directory; equal tasks have the same name and are recorded once."""
        model = (
            f"p{self.modulus}-{self.depth}-{self.hidden}"
            if self.kind == "transformer"
            else f"w{self.width:g}-{self.side}{'-bn' if self.batch_norm else ''}"
        )
        return f"{self.kind}-{model}-n{self.samples}-b{self.batch}-s{self.steps}-seed{self.seed}"


@dataclass(frozen=True)
class Settings:
    """Sizes of all rows; the bars hold for the defaults.

    Attributes
    ----------
    sampled, full_batch, resnet, resnet_norm, growth : TaskSpec
        The recorded runs of rows 1–2, of 3–5 and 8, of 6, of 7, and the smallest of row 10.
    recorded : tuple of TaskSpec
        The models of row 9; their ``steps`` are those of one timed fit.
    inputs : dict of int to int
        Inputs (measurements, for log-probabilities) of each row.
    tolerance : dict of int to float
        Tolerance of a row's ledgers, where it is not the default of ``attribute``. The first steps of a deep network are
        long and curved. They take about twice as many nodes for a tenth of the tolerance.
    groups : int
        Groups of samples in row 8.
    long_steps : tuple of int
        Steps of the short and the long run of row 12.
    long_batch, layers : int
        Samples of a step there, all of them different; layers of its deep model.
    first : dict of str to int
        Models of row 13, and the inputs that are asked about. Of the largest model, one: its rows are as large as it is.
    repeats : int
        Repeats of every timing; figures are medians of their ratios.
    plain_steps : dict of str to int
        Steps of one timing of plain training, by kind of model.
    paper_nodes, paper_steps : int
        Quadrature nodes of the paper's procedure, and the steps of it that are timed in one repeat.
    tolerances : tuple of float
        Largest first. If a row asks for an accuracy, the first tolerance that gives it is used.
    isolated : bool
        Whether each part runs in its own process, so that its peak memory can be measured.
    """

    sampled: TaskSpec = TaskSpec("transformer", 1024, 512, 200)
    full_batch: TaskSpec = TaskSpec("transformer", 4000, 4000, 500)
    # The first steps are the hardest to integrate. With 16 steps in all, their nodes took most of the time.
    resnet: TaskSpec = TaskSpec("resnet9", 1280, 128, 64)
    resnet_norm: TaskSpec = TaskSpec("resnet9", 1280, 128, 64, batch_norm=True)
    growth: TaskSpec = TaskSpec("transformer", 2000, 2000, 20)
    recorded: tuple[TaskSpec, ...] = (
        TaskSpec("transformer", 4000, 4000, 20),
        TaskSpec("resnet9", 1280, 128, 8),
    )
    inputs: dict[int, int] = field(
        default_factory=lambda: {1: 2, 2: 10, 3: 2000, 4: 100, 5: 20, 6: 16, 7: 4, 8: 1000, 10: 10, 11: 10}
    )
    tolerance: dict[int, float] = field(default_factory=lambda: {6: 1e-2, 7: 1e-2})
    groups: int = 10
    long_steps: tuple[int, int] = (1000, 100_000)
    long_batch: int = 10
    layers: int = 2000
    first: dict[str, int] = field(
        default_factory=lambda: {
            "dense": 4,
            "100 layers": 4,
            "transformer": 4,
            "resnet9": 4,
            "mobilenet, frozen": 4,
            "mobilenet": 4,
            "convnext": 1,
        }
    )
    repeats: int = 3
    plain_steps: dict[str, int] = field(default_factory=lambda: {"transformer": 24, "resnet9": 4})
    paper_nodes: int = 100
    paper_steps: int = 4
    tolerances: tuple[float, ...] = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)
    isolated: bool = True


def _tiny(batch: int, steps: int = 6) -> TaskSpec:
    return TaskSpec("transformer", 20, batch, steps, modulus=7, depth=8, hidden=16)


# Every row, on models that are small enough for continuous integration. The bars do not hold for these sizes. Most
# rows share a run, and all share a process: importing TensorFlow thirty times would take longer than the measurements.
QUICK = Settings(
    sampled=_tiny(10),
    full_batch=_tiny(20),
    resnet=TaskSpec("resnet9", 32, 16, 3, width=0.03, side=12),
    resnet_norm=TaskSpec("resnet9", 32, 16, 3, width=0.03, side=12, batch_norm=True),
    growth=_tiny(20),
    recorded=(_tiny(20), TaskSpec("resnet9", 32, 16, 3, width=0.03, side=12)),
    inputs={1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 10: 1, 11: 2},
    groups=2,
    long_steps=(20, 60),
    long_batch=4,
    layers=8,
    first={"dense": 2},
    repeats=1,
    plain_steps={"transformer": 3, "resnet9": 2},
    paper_nodes=3,
    paper_steps=2,
    tolerances=(1e-2, 1e-3, 1e-4),
    isolated=False,
)


def with_steps(settings: Settings, steps: int) -> Settings:
    """Return the settings with all recorded runs cut to ``steps`` steps, for a quick look at the costs."""
    names = ("sampled", "full_batch", "resnet", "resnet_norm", "growth")
    cut = {
        name: dataclasses.replace(spec, steps=min(steps, spec.steps))
        for name in names
        for spec in [getattr(settings, name)]
    }
    return dataclasses.replace(settings, **cut)
