"""The walk over a function's operations: traced, analyzed, fused into nodes, planned by a composite, run."""
