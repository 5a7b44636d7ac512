"""The run directory: its format, and what can be read back from it without the model's code."""

from explaind_tf.runs.path import WeightPath
from explaind_tf.runs.reader import RecordedRun
from explaind_tf.runs.samples import SampleStore

__all__ = ["RecordedRun", "SampleStore", "WeightPath"]
