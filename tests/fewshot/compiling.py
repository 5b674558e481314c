"""Quick compilation, shared by the tests of this folder."""

import functools

import jax

# Compiled once and run a few times: XLA's own passes would cost more than they save.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
