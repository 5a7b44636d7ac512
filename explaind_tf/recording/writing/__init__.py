"""The writer of a run directory, and the places that runs are written to."""
