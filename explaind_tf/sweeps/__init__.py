"""Sweeps: loops over the steps of a path that yield the entries of a ledger."""
