"""Ledgers of the architectures that people use: those of keras.applications and KerasHub."""
