"""Sums that jaxlib 0.10.2 and 0.11.0 give wrongly on CPUs are right once jxai is imported, in a user's process."""

import os
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

WRONG = version("jaxlib") in ("0.10.2", "0.11.0")

SUMS = """
import warnings
{first}
import jax, jax.numpy as jnp, numpy as np
a = np.random.default_rng(0).uniform(1, 2, (5, 3, 5, 5, 6, 6, 8)).astype(np.float32)
b = a[0, 0]
f = jax.jit(lambda a, b: (a * b[None, None]).sum(3))
expected = (a.astype(float) * b).sum(3)
print(max(float(np.abs(f(a, b) - expected).max()) for _ in range(5)))
rows = np.zeros((32769, 3), np.float32)
rows[:, 0] = np.arange(32769)
print(float(jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)[-1]) - 32768.0**2)
"""


def run(code: str, flags: str = "") -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": flags}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )


def test_sums_of_many_axes_are_right_once_jxai_is_imported():
    errors = [float(line) for line in run(SUMS.format(first="import jxai")).stdout.split()]
    assert np.isfinite(errors).all()
    assert errors[0] < 1e-4
    assert errors[1] == 0


@pytest.mark.skipif(not WRONG, reason="this jaxlib gives right sums")
def test_a_late_import_warns_and_a_users_flag_stays():
    late = run("import jax.numpy as jnp; jnp.ones(3).sum()\nimport jxai")
    assert "import jxai first" in late.stderr
    assert "test_miscompiled" not in late.stderr
    said = run(
        "import jxai, os; print(os.environ['XLA_FLAGS'])", "--xla_cpu_experimental_ynn_fusion_type=-dot"
    )
    assert said.stdout.strip() == "--xla_cpu_experimental_ynn_fusion_type=-dot"
    assert not said.stderr
