"""Batches of inputs to any function: what is asked of them, many inputs a chunk at a time, noise and blur."""

__all__: list[str] = []  # what estimators and metrics are made of; they import the modules
