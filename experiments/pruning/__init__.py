"""Pruning by parameter influence, against other scores."""
