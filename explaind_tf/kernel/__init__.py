"""The kernel: integrals of steps and rows of uses in plain TensorFlow, without files, Keras or labels."""
