"""The command line ``explaind-tf``: what `Run` does, for a shell with a run directory and a file of inputs."""

from explaind_tf.cli.commands import app

__all__ = ["app"]
