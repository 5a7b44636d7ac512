"""Numbers as a reader sees them."""


def number(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}".replace("-", "−")


def signed(value: float) -> str:
    """Return a change with its sign and three significant digits."""
    return f"{value:+#.3g}".replace("-", "−")
