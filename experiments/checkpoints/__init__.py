"""An ordinary training, accounted for from its checkpoints."""
