"""Ordinary training, accounted for from its checkpoints."""
