"""The run directory: its format, and what can be read back from it without the model's code."""

from explaind_tf.runs.reader import RecordedRun
from explaind_tf.runs.samples import SampleStore
from explaind_tf.runs.weight_path import WeightPath

__all__ = ["RecordedRun", "SampleStore", "WeightPath"]
