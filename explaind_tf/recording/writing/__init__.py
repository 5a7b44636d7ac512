"""The writer of a run directory, and the places where runs are written."""
