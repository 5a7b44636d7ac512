"""The levels of a run: what can be asked of it.

Each level has all that the next one has. A training that cannot be taken apart by samples may still be known by cause, and
any training moves its weights along a path.
"""

from typing import Final, Literal, get_args

from explaind_tf import constants as names

Level = Literal["sample", "cause", "path"]

# From the most to the least.
LEVELS: Final[tuple[Level, ...]] = get_args(Level)
SAMPLE, CAUSE, PATH = LEVELS

_PARTS: Final = (names.STEP, names.LAYER, names.PARAMETER)
# The axes that the ledgers of a run can have.
AXES: Final[dict[Level, tuple[str, ...]]] = {SAMPLE: names.AXES, CAUSE: _PARTS, PATH: _PARTS}

# What a run of a level tells, in words.
MEANING: Final[dict[Level, str]] = {
    SAMPLE: "by training sample, cause (data, weight decay, …), step, and layer or weight",
    CAUSE: "by cause (data, weight decay, …), step, and layer or weight",
    PATH: "by step, and layer or weight",
}


def allows(required: Level, level: Level) -> bool:
    """Return whether a run of a level has what is required."""
    return LEVELS.index(level) <= LEVELS.index(required)


def way_on(level: Level) -> str:
    """Return how to record with less, in words."""
    return f'To record what can be recorded, {MEANING[level]}: PathLogger(run_dir, require="{level}").'
