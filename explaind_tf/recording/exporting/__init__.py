"""From a compiled Keras model to the graphs of a run."""
