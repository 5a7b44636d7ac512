"""What is asked of a run: options, and what they mean for that run."""
