"""How much disk keyframes save, and a check that ledgers stay the same."""
