"""``python -m explaind_tf.cli``."""

from explaind_tf.cli import app

app(prog_name="explaind-tf")
