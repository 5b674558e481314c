"""Versions of jaxlib whose compiler for CPUs gives wrong numbers, and how it is kept from doing so.

jaxlib 0.10.2 and 0.11.0 hand sums to YNNPACK, which reads memory that nobody wrote where arrays of seven and more
axes are multiplied and summed (jax-ml/jax#39257), and 0.10.2 rounds sums of squares of products wrongly
(jax-ml/jax#39103). Explanations are full of such sums: of each class (`vmap`), image and map. A flag of XLA leaves
these sums to XLA itself; it counts when it is set before JAX is first used, so `import jxai` sets it.
"""

import importlib.metadata
import os
import sys
import warnings

_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
_WRONG = ("0.10.2", "0.11.0")


def keep_sums_right() -> None:
    """Have XLA compute sums itself where this jaxlib's other way is wrong; a flag that the user has set stays.

    Warns:
        RuntimeWarning: JAX has been used on a CPU already, so that the flag comes too late.
    """
    version = importlib.metadata.version("jaxlib")
    flags = os.environ.get("XLA_FLAGS", "")
    if version not in _WRONG or _FLAG in flags:
        return
    os.environ["XLA_FLAGS"] = f"{flags} {_FLAG}=-reduce".strip()
    bridge = sys.modules.get("jax._src.xla_bridge")
    if bridge is not None and bridge.backends_are_initialized() and bridge.default_backend() == "cpu":
        warnings.warn(
            f"expected to be imported before JAX computes, since jaxlib {version} gives wrong sums on CPUs "
            f"(jax-ml/jax#39257): import jxai first, or set XLA_FLAGS={_FLAG}=-reduce, or take another jaxlib",
            RuntimeWarning,
            stacklevel=3,
        )
