"""What data influence is good for: detection, and the effect of retraining."""
