"""The SmoothTaylor paper's table: `python -m experiments.smooth_taylor`."""
