"""Figures of ledgers, for notebooks and the report: each function draws an ``xarray`` ledger with plotly.

Where a colour means a sign, blue raised the measurement and red lowered it. The background is left to the page or
notebook that shows the figure.
"""

from explaind_tf.report.figures.balance_charts import balance, kernel_machine
from explaind_tf.report.figures.by_layer import layers
from explaind_tf.report.figures.by_step import steps
from explaind_tf.report.figures.heat_maps import heat_map
from explaind_tf.report.figures.samples_chart import samples
from explaind_tf.report.figures.weight_maps import weights, weights_of_layer

__all__ = [
    "balance",
    "heat_map",
    "kernel_machine",
    "layers",
    "samples",
    "steps",
    "weights",
    "weights_of_layer",
]
