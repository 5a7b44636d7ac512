"""Mutated runs: what a stranger could do to a run directory, and what the package makes of it."""
