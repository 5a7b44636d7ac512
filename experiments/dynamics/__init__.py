"""A class that joins the data half-way; see ``__main__``."""
