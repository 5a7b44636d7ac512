"""Evaluation of data influence: detection, and prediction of the effect of retraining."""
