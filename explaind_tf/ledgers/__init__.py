"""Entries of a ledger, and what they become: labelled arrays, with methods, on disk."""
