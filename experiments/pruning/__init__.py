"""Pruning by parameter influence, compared with other scores."""
