"""What is known about single TensorFlow operations."""
