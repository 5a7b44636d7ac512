"""Which questions a view needs answered, and by which digest an answer is known."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Final, Literal

from explaind_tf import constants as names
from explaind_tf.explore.view import View

Kind = Literal["load", "account", "where", "reach", "tokens", "counterfactual", "verdict"]

# An answer is held whole, so that choosing and regrouping take no sweep.
_MOST_BYTES: Final = 256 * 2**20
_BYTES: Final = 8

# From the most that can be looked at to the least.
_OF_SAMPLES: Final = (
    (names.SAMPLE, names.STEP, names.LAYER),
    (names.SAMPLE, names.STEP),
    (names.SAMPLE,),
)
WHERE: Final = (names.LAYER, names.STEP)


# Of the coarse answer: nodes in each step, and a tolerance so loose that its residual is no reason to look for a cause. To
# look for one takes as long as the answer.
COARSE_NODES: Final = 1
COARSE_TOLERANCE: Final = 0.99
# Of a verdict: how often to train again, and the share of the samples that each training leaves out.
RETRAININGS: Final = 4
SHARE: Final = 0.05


@dataclass(frozen=True)
class Question:
    """What is asked of the run.

    Attributes
    ----------
    kind : str
        ``"account"``: the ledger of some inputs, by sample as far as memory allows. ``"where"``: by layer and step.
        ``"reach"``: the ledger of all inputs, by sample. ``"tokens"``: by the positions of samples. ``"counterfactual"`` and
        ``"verdict"``: how predictions depend on samples. ``"load"``: the model's predictions.
    inputs : tuple of int
        Positions of the inputs.
    axes : tuple of str
        What the change is split by.
    """

    kind: Kind
    inputs: tuple[int, ...] = ()
    axes: tuple[str, ...] = ()


LOAD: Final = Question("load")


@dataclass(frozen=True)
class Sizes:
    """How large answers are.

    Attributes
    ----------
    inputs, outputs, samples, steps, layers, tokens : int
        Lengths of the axes. There are no samples if the run cannot tell them apart, and no tokens unless a sample has
        several losses.
    """

    inputs: int
    outputs: int
    samples: int
    steps: int
    layers: int
    tokens: int = 0

    def bytes_of(self, inputs: int, axes: Sequence[str]) -> int:
        """Return the bytes of the largest variable of a ledger."""
        length = {
            names.SAMPLE: self.samples,
            names.STEP: self.steps,
            names.LAYER: self.layers,
            names.TOKEN: self.tokens,
        }
        return _BYTES * inputs * self.outputs * prod(length[axis] for axis in axes)


def questions_of(view: View, sizes: Sizes) -> tuple[Question, ...]:
    """Return the questions whose answers a view shows, the most wanted first."""
    found = []
    if view.inputs:
        found.append(account_of(view.inputs, sizes))
        if not set(WHERE) <= set(found[0].axes):
            found.append(Question("where", view.inputs, WHERE))
    chosen = view.samples or view.group
    if chosen and sizes.samples:
        found.append(reach_of(sizes))
        if view.inputs and len(view.samples) == 1 and sizes.tokens:
            found.append(Question("tokens", view.inputs, (names.SAMPLE, names.TOKEN)))
    if view.inputs and view.response and sizes.samples:
        kind: Kind = "verdict" if view.response == "verdict" else "counterfactual"
        found.append(Question(kind, view.inputs, (names.SAMPLE,)))
    return tuple(found)


def account_of(inputs: tuple[int, ...], sizes: Sizes) -> Question:
    """Return the question about some inputs that says most and whose answer fits into memory."""
    if not sizes.samples:
        return Question("account", inputs, WHERE)
    fitting = [axes for axes in _OF_SAMPLES if sizes.bytes_of(len(inputs), axes) <= _MOST_BYTES]
    return Question("account", inputs, fitting[0] if fitting else _OF_SAMPLES[-1])


def reach_of(sizes: Sizes) -> Question:
    """Return the question whom samples helped or hurt: about all inputs, or as many as fit into memory."""
    for axes in _OF_SAMPLES[1:]:
        if sizes.bytes_of(sizes.inputs, axes) <= _MOST_BYTES:
            return Question("reach", tuple(range(sizes.inputs)), axes)
    fitting = max(1, _MOST_BYTES // sizes.bytes_of(1, _OF_SAMPLES[-1]))
    return Question("reach", tuple(range(min(fitting, sizes.inputs))), _OF_SAMPLES[-1])


def digest_of(question: Question, about: str) -> str:
    """Return the name under which an answer is kept.

    Parameters
    ----------
    question : Question
        What was asked.
    about : str
        Digest of all else that the answer depends on: run, inputs, measurement, tolerance and version.
    """
    # A verdict is the counterfactual answer with more said about it, so each is kept under its own name.
    return hashlib.sha256(json.dumps([about, asdict(question)]).encode()).hexdigest()[:32]
