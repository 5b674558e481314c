"""How many threads XLA computes with on a CPU. It splits sums by their number, so bits depend on it.

As many as cores by default, and never fewer than devices: so another machine, a smaller allocation or more devices
give other bits. What trains therefore takes a number of its own, whatever the machine has; `PJRT_NPROC` in the
environment gives another.
"""

import os

import jax

_VARIABLE = "PJRT_NPROC"  # of XLA's client for CPUs, read when it starts
_TRAINING = "8"


def fix() -> None:
    """Take the number of threads that trains, unless one is given; before JAX computes anything."""
    os.environ.setdefault(_VARIABLE, _TRAINING)


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads() -> int | None:
    """How many threads XLA has here; None where it computes on no CPU."""
    if jax.default_backend() != "cpu":
        return None
    asked = os.environ.get(_VARIABLE, "")
    return max(int(asked) if asked.isdecimal() else cores(), jax.local_device_count())
