"""Why a run lacks the training step: keys of the manifest's environment, and a reason."""

from typing import Final

NO_TRAINING_STEP: Final = "no_training_step"
# It lacks the step with weights of samples.
NO_WEIGHTED_STEP: Final = "no_weighted_step"
# The reason of users who asked for it.
LEFT_OUT: Final = "It was recorded with PathLogger(retrain=False)."
# The reason of trainings under a strategy.
OF_REPLICAS: Final = (
    "It was trained under a tf.distribute.MirroredStrategy, whose training step is not recorded."
)
