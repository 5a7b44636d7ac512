"""Answers by the workers of a Dask client: what is sent to them, what they do, and how their parts are put together."""
