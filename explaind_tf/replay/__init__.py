"""Recorded steps as steps of the path, each displacement split into its causes."""
