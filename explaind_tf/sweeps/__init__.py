"""Ways through the steps of a path: steps in, entries out."""
