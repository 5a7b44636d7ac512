"""The HTML report: what ledgers say, for a reader with a browser."""

from explaind_tf.report.accounts import balanced_ledger, first_row_of_ids
from explaind_tf.report.html import Example, Section, write_report

__all__ = ["Example", "Section", "balanced_ledger", "first_row_of_ids", "write_report"]
