"""A small language model: attention against MLP by depth and step, and the training text behind continuations."""
