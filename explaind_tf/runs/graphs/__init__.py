"""The recorded TensorFlow graphs, loaded from a run."""
