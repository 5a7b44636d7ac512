"""The command line ``explaind-tf``: what `Run` does, from a shell, with the run directory and a file of inputs."""

import os

# TensorFlow's own notices; a user who wants them sets the variable. Before anything imports it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from explaind_tf.cli.commands import app

__all__ = ["app"]
