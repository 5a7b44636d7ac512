"""Grokking of modular addition: phases, kernel and interventions; see ``__main__``."""
