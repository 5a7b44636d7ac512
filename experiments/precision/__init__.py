"""What low precision does to predictions, and that ledgers account for it."""
