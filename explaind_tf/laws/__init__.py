"""Displacement laws: how an optimizer's step moves the weights. Pure functions, without Keras."""
