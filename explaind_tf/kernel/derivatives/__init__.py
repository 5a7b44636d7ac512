"""Compiled derivatives of a model's measurement and losses."""
