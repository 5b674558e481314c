"""Explanations as pure functions in JAX, and training that uses them."""

from jxai.miscompiled import keep_sums_right

__version__ = "0.1.0"

keep_sums_right()
