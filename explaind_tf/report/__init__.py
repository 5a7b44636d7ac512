"""The HTML report, and the figures that show ledgers."""

from explaind_tf.report.html import write_report
from explaind_tf.report.section import Example, Section
from explaind_tf.report.sections import Asked, account_for

__all__ = ["Asked", "Example", "Section", "account_for", "write_report"]
