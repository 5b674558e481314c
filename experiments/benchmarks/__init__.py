"""Speed and memory, side by side with a rival in the same run: `python -m experiments.benchmarks.NAME`."""
