"""What a training step is seen to do: its batch, its outcome, and whether both can be recorded."""
