"""The cost of attribution, in units of a training step or of the paper's own procedure."""
