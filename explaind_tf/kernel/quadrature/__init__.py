"""Quadrature along one step of the path."""
