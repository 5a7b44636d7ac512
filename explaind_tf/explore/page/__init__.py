"""The parts of the page, each a function of a session and a view."""
