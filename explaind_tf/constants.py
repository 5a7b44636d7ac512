"""Names that the whole package shares: axes, ledger variables and files of a run directory.

They are public. Saved ledgers are read by these names, so a name changes only together with
:data:`FORMAT_VERSION`.
"""

from typing import Final

VERSION: Final = "0.1.0"
FORMAT_VERSION: Final = 11
# Versions that can be read.
KNOWN_VERSIONS: Final = (6, 7, 8, 9, 10, 11)

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
ROUNDING: Final = "rounding"
PRECISION: Final = "precision"
JUMPS: Final = "jumps"
WEIGHT_DECAY: Final = "weight_decay"
REGULARIZER: Final = "regularizer"
CARRYOVER: Final = "carryover"
EXTERNAL: Final = "external"
STATE: Final = "state"
RESIDUAL: Final = "residual"

# Checkpoints do not show what moved the trained weights. Their ledgers have this one term instead of those of the causes:
# a zero under `data` would say that no sample did anything.
WEIGHTS: Final = "weights"

# Variable of ledgers with conditioning=True: the part of `data` through weights whose batch gradient nearly cancelled.
CANCELLED: Final = "cancelled"

# Variable of counterfactual answers: the derivative of the final measurement by the weight of a sample.
RESPONSE: Final = "response"
# Attribute of a counterfactual answer: how well retraining bears it out, in words.
VERDICT: Final = "verdict"

# Coordinate of a ledger: the farthest that an input's outputs got from their start. The tolerance is relative to it.
MOVEMENT: Final = "movement"

# Attribute of a ledger that does not balance: why.
DIAGNOSIS: Final = "diagnosis"

# Label of all layers that were not asked for. Without them the ledger would not balance.
OTHER_LAYERS: Final = "(other layers)"

# Files of a run directory.
MANIFEST_FILE: Final = "manifest.json"
WRITER_FILE: Final = "writer.json"  # at a URL: who is writing
GRAPHS_DIR: Final = "graphs"
TRAINING_DIR: Final = "training"  # within the graphs
STEPS_SHARD: Final = "steps-{:05d}.tfrecord"
SAMPLES_SHARD: Final = "samples-{:05d}.tfrecord"
TEMPORARY_SUFFIX: Final = ".tmp"
