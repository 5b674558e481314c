"""The papers' tables, the benchmarks and the demo: `python -m experiments.NAME` in a clone (README.md)."""
