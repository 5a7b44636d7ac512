"""Grokking of other operations than addition; see ``__main__``."""
