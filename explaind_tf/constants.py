"""Names shared by every room: axes, ledger variables and files of a run directory.

They are public: a ledger written today is read by name tomorrow, so a name is changed only together
with :data:`FORMAT_VERSION`.
"""

from typing import Final

VERSION: Final = "0.1.0"
FORMAT_VERSION: Final = 6

# Dimensions of a ledger.
INPUT: Final = "input"
OUTPUT: Final = "output"
SAMPLE: Final = "sample"
TOKEN: Final = "token"
GROUP: Final = "group"
STEP: Final = "step"
LAYER: Final = "layer"
PARAMETER: Final = "parameter"
AXES: Final = (SAMPLE, TOKEN, GROUP, STEP, LAYER, PARAMETER)

# Data variables of a ledger; explaind_tf/terms.py has a row for each that is a term.
INITIAL: Final = "initial"
FINAL: Final = "final"
DATA: Final = "data"
WEIGHT_DECAY: Final = "weight_decay"
REGULARIZER: Final = "regularizer"
CARRYOVER: Final = "carryover"
EXTERNAL: Final = "external"
STATE: Final = "state"
RESIDUAL: Final = "residual"

# Checkpoints do not tell what moved the trained weights. That is a term of its own, and the causes that it may stand for
# are not in such a ledger at all: a zero under `data` would say that no sample did anything.
WEIGHTS: Final = "weights"

# Coordinate of a ledger: how far the outputs of an input went, the yardstick of the tolerance.
MOVEMENT: Final = "movement"

# Label of the layers that were not asked for: the ledger balances only if they are kept too.
OTHER_LAYERS: Final = "(other layers)"

# Files of a run directory.
MANIFEST_FILE: Final = "manifest.json"
GRAPHS_DIR: Final = "graphs"
TRAINING_DIR: Final = "training"  # within the graphs
STEPS_SHARD: Final = "steps-{:05d}.tfrecord"
SAMPLES_SHARD: Final = "samples-{:05d}.tfrecord"
TEMPORARY_SUFFIX: Final = ".tmp"
