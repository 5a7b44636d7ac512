"""Looks at a run in the browser: a page on this machine that shows inputs and asks the run about them."""

from explaind_tf.explore.opening import explore

__all__ = ["explore"]
