"""Description of a run: the model's variables, optimizer, loss and data, as frozen dataclasses and JSON."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

import numpy as np

from explaind_tf.levels import LEVELS, SAMPLE, Level
from explaind_tf.runs.format import structure as struct
from explaind_tf.runs.format.expect import expect, is_count, short, text
from explaind_tf.runs.format.expect import fields as known_fields
from explaind_tf.runs.format.structure import Structure

# Larger numbers cannot be computed with in float32.
_MOST = 2.0**127


@dataclass(frozen=True)
class VariableSpec:
    """A variable of the model: Keras path, shape, dtype, and whether weight decay applies to it."""

    path: str
    shape: tuple[int, ...]
    dtype: str
    decay: bool

    @property
    def size(self) -> int:
        """Number of scalars in the variable."""
        return math.prod(self.shape)

    @property
    def is_floating(self) -> bool:
        """Whether the variable moves along a continuous path. Seeds and counters do not."""
        return "float" in self.dtype

    @property
    def is_average(self) -> bool:
        """Whether a variable of an optimizer is a moving average of weights; Keras names it so."""
        return self.path.endswith("_average")

    @property
    def layer(self) -> str:
        """Path of the layer that owns the variable."""
        return self.path.rsplit("/", 1)[0]


def averages_of(specs: Sequence[VariableSpec], values: Sequence[np.ndarray]) -> np.ndarray:
    """Return the moving averages among the variables of an optimizer as one vector, empty if there are none."""
    pairs = zip(specs, values, strict=True)
    found = [value.reshape(-1) for spec, value in pairs if spec.is_average]
    return np.concatenate(found) if found else np.zeros(0)


@dataclass(frozen=True)
class OptimizerSettings:
    """How an optimizer turns gradients into updates.

    Attributes
    ----------
    law : str
        Name of the displacement law.
    constants : dict
        Constants of the law, as returned by :meth:`explaind_tf.laws.Law.to_config`.
    second_moment : bool
        Whether the law divides by a second moment.
    accumulates : int
        Number of batches whose gradients make up one update.
    clipvalue : float or None
        Limit to which the elements of gradients are clipped; None if they are not.
    ema_momentum : float or None
        Share that a moving average of the weights keeps of itself in each step; None if there is none, or in runs of earlier
        versions.
    """

    law: str
    constants: dict[str, Any]
    second_moment: bool
    accumulates: int
    clipvalue: float | None
    # Not compared: runs of earlier versions, which may be continued, do not name it.
    ema_momentum: float | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "OptimizerSettings":
        """Read and check the entry of a manifest. Whether the law exists is checked only where it is used.

        Raises
        ------
        RunFormatError, KeyError
            If an entry is invalid or missing.
        """
        known_fields(body, [field.name for field in fields(cls)], "optimizer")
        law, constants = body["law"], body["constants"]
        expect(
            isinstance(law, str) and isinstance(constants, dict),
            "optimizer must give a law and its constants",
        )
        expect(isinstance(body["second_moment"], bool), "optimizer.second_moment must be true or false")
        for name, value in constants.items():
            is_number = isinstance(value, (int, float)) and abs(value) <= _MOST
            expect(
                is_number or isinstance(value, (str, type(None))),
                f"optimizer.constants.{short(name)}={short(value)} must be a number that float32 can hold, a bool or a text",
            )
        accumulates, clipvalue = body["accumulates"], body["clipvalue"]
        expect(
            is_count(accumulates) and accumulates > 0,
            f"optimizer.accumulates={short(accumulates)} must be a whole number from 1",
        )
        kept = body.get("ema_momentum")
        for name, value in (("clipvalue", clipvalue), ("ema_momentum", kept)):
            is_number = (
                isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= _MOST
            )
            expect(
                value is None or is_number,
                f"optimizer.{name}={short(value)} must be null or a number that float32 can hold",
            )
        return cls(law, constants, body["second_moment"], accumulates, clipvalue, kept)


# Where nothing shows what moved the weights.
UNKNOWN_OPTIMIZER: Final = OptimizerSettings(
    law="", constants={}, second_moment=False, accumulates=1, clipvalue=None
)


@dataclass(frozen=True)
class RunDescription:
    """Model, optimizer, loss and data of a run. They are the same in all fits that continue the run.

    Attributes
    ----------
    variables : tuple of VariableSpec
        Trainable variables, concatenated to θ in this order.
    state : tuple of VariableSpec
        Non-trainable variables.
    optimizer : OptimizerSettings
        The displacement law, its constants, and how gradients are prepared for it.
    optimizer_state : tuple of VariableSpec
        The optimizer's variables other than its moments and accumulated gradients.
    loss : dict
        Names and reductions of the compiled losses, and whether there are penalties in addition.
    inputs, targets : Structure
        Structure of one sample.
    weights : Structure or None
        Structure of the sample weights of one sample; None if the dataset has none.
    outputs : Structure
        Structure of the model's output for one input.
    level : {"sample", "cause", "path"}
        What can be asked of the run.
    level_reason : str
        Why it is not more; empty if it is all.
    """

    variables: tuple[VariableSpec, ...]
    state: tuple[VariableSpec, ...]
    optimizer: OptimizerSettings
    optimizer_state: tuple[VariableSpec, ...]
    loss: dict[str, Any]
    inputs: Structure
    targets: Structure
    weights: Structure | None
    outputs: Structure
    level: Level = field(default=SAMPLE, kw_only=True)
    level_reason: str = field(default="", kw_only=True)

    def differences(self, other: "RunDescription", names: Collection[str], *, with_decay: bool) -> list[str]:
        """Return the names of the fields in which another description differs.

        Names of variables are ignored, since Keras numbers layers anew in each program.

        Parameters
        ----------
        other : RunDescription
            The other description.
        names : collection of str
            The fields to compare.
        with_decay : bool
            Whether to compare which variables decay. This is known only after a step.
        """
        return [
            name
            for name in names
            if _nameless(getattr(self, name), with_decay) != _nameless(getattr(other, name), with_decay)
        ]

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "RunDescription":
        """Read and check the description in a manifest.

        Raises
        ------
        RunFormatError, KeyError, TypeError, ValueError
            If an entry is invalid or missing.
        """
        for key in ("optimizer", "loss"):
            expect(isinstance(body[key], dict), f"{key} must be an object")
        for key in ("variables", "state", "optimizer_state"):
            expect(isinstance(body[key], list), f"{key} must be a list")
        optimizer = OptimizerSettings.from_json(body["optimizer"])
        level = _level_from_json(body)
        _check_losses(body["loss"], are_known=level.get("level", SAMPLE) == SAMPLE)
        variables = tuple(_variable_from_json(item, may_decay=True) for item in body["variables"])
        paths = [variable.path for variable in variables]
        expect(len(set(paths)) == len(paths), "it names a variable twice")
        dtypes = {variable.dtype for variable in variables}
        expect(
            dtypes <= {"float32"} or dtypes <= {"float64"},
            f"trainable variables must be all float32 or all float64; found {sorted(dtypes)}",
        )
        carried = tuple(_variable_from_json(item, may_decay=False) for item in body["optimizer_state"])
        expect(
            optimizer.ema_momentum is None or any(spec.is_average for spec in carried),
            f"optimizer.ema_momentum={short(optimizer.ema_momentum)}, but the optimizer keeps no averages of weights: "
            f"ema_momentum must be null",
        )
        return RunDescription(
            variables=variables,
            state=tuple(_variable_from_json(item, may_decay=False) for item in body["state"]),
            optimizer=optimizer,
            optimizer_state=carried,
            loss=body["loss"],
            inputs=struct.from_json(body["inputs"]),
            targets=struct.from_json(body["targets"]),
            weights=None if body["weights"] is None else struct.from_json(body["weights"]),
            outputs=struct.from_json(body["outputs"]),
            **level,
        )


# All that must be the same in each fit of a run.
ALL_FIELDS: Final = tuple(field.name for field in fields(RunDescription) if field.name != "level_reason")

# Those of them that are known before the first step shows the form of the data.
KNOWN_BEFORE_DATA: Final = ("variables", "state", "optimizer", "optimizer_state")


def _level_from_json(body: dict[str, Any]) -> dict[str, Any]:
    """Return the level and its reason. Before version 9, all runs were of the level of samples."""
    if "level" not in body:
        return {}
    expect(body["level"] in LEVELS, f"level={short(body['level'])} must be one of {', '.join(LEVELS)}")
    return {"level": body["level"], "level_reason": text(body, "level_reason")}


def _check_losses(loss: dict[str, Any], *, are_known: bool) -> None:
    """Check the entry of the losses. It is empty if they are not known, as in a run without losses of samples."""
    known_fields(loss, ("losses", "has_regularizer"), "loss")
    expect(
        len(loss) == 2 or not (loss or are_known), f"loss={short(loss)} must give losses and has_regularizer"
    )
    losses = loss.get("losses", [])
    are_named = isinstance(losses, list) and all(
        isinstance(item, dict)
        and item.keys() == {"name", "reduction"}
        and isinstance(item.get("name"), str)
        and isinstance(item.get("reduction"), str)
        for item in losses
    )
    expect(
        are_named, f"loss.losses={short(losses)} must be a list of losses, each with its name and reduction"
    )
    expect(
        isinstance(loss.get("has_regularizer", False), bool),
        f"loss.has_regularizer={short(loss.get('has_regularizer'))} must be true or false",
    )


def _variable_from_json(item: dict[str, Any], *, may_decay: bool) -> VariableSpec:
    known_fields(item, [field.name for field in fields(VariableSpec)], "a variable")
    leaf = struct.from_json({"leaf": {"dtype": item["dtype"], "shape": item["shape"]}})
    assert isinstance(leaf, struct.Leaf)
    expect(None not in leaf.shape, f"variable {short(item['path'])} has an unknown size")
    shape = tuple(size for size in leaf.shape if size is not None)
    expect(
        isinstance(item["decay"], bool),
        f"variable {short(item['path'])}: decay={short(item['decay'])} must be true or false",
    )
    expect(
        may_decay or not item["decay"],
        f"variable {short(item['path'])} has decay=true, but no optimizer trains it: decay must be false",
    )
    return VariableSpec(text(item, "path"), shape, leaf.dtype, item["decay"])


def _nameless(value: Any, with_decay: bool) -> Any:
    """Return a description of variables without their names, and any other value unchanged."""
    if not (isinstance(value, tuple) and all(isinstance(part, VariableSpec) for part in value)):
        return value
    return [(spec.shape, spec.dtype, spec.decay and with_decay) for spec in value]
