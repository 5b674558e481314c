"""Explanations as pure functions in JAX, and training that uses them."""

__version__ = "0.1.0"
