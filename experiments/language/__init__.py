"""A small language model: attention and MLP by depth and step, and the training text behind continuations."""
